"""Who takes part: CoralX by variants of its config, and its rivals, all on the same rungs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from curve_table import Table
from evolution import QUALITY, SIZE, config_for, evolve
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from rivals import optimise, random_search, successive_halving
from tape import Tape

Search = Callable[[Tape, int], None]
Rungs = Sequence[tuple[Fraction, Fraction]]
"""(share of the budget, survival rate) of each stage; the last share is 1."""


@dataclass(frozen=True)
class Variant:
    """A CoralX config: what it says besides the table's space and the rungs, by section."""

    name: str
    sections: Mapping[str, Any] = field(default_factory=dict)


ASYNCHRONOUS = {"hyperband_config": {"promotion": "asynchronous"}}
CORALX = (
    Variant("CoralX"),
    Variant("CoralX, asynchronous", ASYNCHRONOUS),
    Variant(
        "CoralX, asynchronous, half elite", {**ASYNCHRONOUS, "evolution": {"elite_fraction": 0.5}}
    ),
    Variant("CoralX, adaptive rungs", {"hyperband_config": {"rungs": "adaptive"}}),
    Variant("CoralX, 2 brackets", {"hyperband_config": {"brackets": 2}}),
)
"""The first is CoralX's defaults."""

COHORTS = (8, 16)
"""Of successive halving alone, and of Optuna's NSGA-II: CoralX's default, and twice it."""


def halving(shares: Sequence[Fraction]) -> Rungs:
    """Rungs at `shares` and at the end, half going on from each."""
    return [(share, Fraction(1, 2)) for share in (*shares, Fraction(1))]


def single_objective(table: Table, rungs: Rungs) -> dict[str, Search]:
    """Methods by name that look for the best configuration on quality alone."""
    found = {v.name: _coralx(config_for(table, rungs, **v.sections)) for v in CORALX}
    found["random search"] = random_search
    for size in COHORTS:
        found[f"successive halving, cohorts of {size}"] = _halving(rungs, size)
    by_halving = SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    by_median = MedianPruner(n_startup_trials=5)
    found["Optuna random + halving"] = _optuna(_random, by_halving, rungs)
    found["Optuna TPE + halving"] = _optuna(_tpe, by_halving, rungs)
    found["Optuna TPE + median"] = _optuna(_tpe, by_median, rungs)
    for size in COHORTS:
        found[f"Optuna NSGA-II({size}) + halving"] = _optuna(_nsga2(size), by_halving, rungs)
    return found


def two_objectives(table: Table, rungs: Rungs) -> dict[str, Search]:
    """Methods by name that look for a front of quality against size. Optuna prunes no trial that
    has two objectives, so its trials run to their end."""
    objectives = [{"metric": QUALITY}, {"metric": SIZE}]
    found: dict[str, Search] = {
        v.name: _coralx(config_for(table, rungs, objectives=objectives, **v.sections))
        for v in CORALX
    }
    found["random search"] = random_search
    found["Optuna TPE"] = _optuna(_tpe, NopPruner(), rungs, with_size=True)
    for size in COHORTS:
        found[f"Optuna NSGA-II({size})"] = _optuna(_nsga2(size), NopPruner(), rungs, with_size=True)
    return found


def _coralx(config: Any) -> Search:
    return lambda tape, seed: evolve(tape, config, seed)


def _halving(rungs: Rungs, cohort: int) -> Search:
    return lambda tape, seed: successive_halving(tape, seed, rungs, cohort)


def _optuna(
    sampler: Callable[[int], BaseSampler],
    pruner: BasePruner,
    rungs: Rungs,
    *,
    with_size: bool = False,
) -> Search:
    shares = [share for share, _ in rungs]
    return lambda tape, seed: optimise(
        tape, seed, sampler(seed), pruner, shares, with_size=with_size
    )


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _nsga2(size: int) -> Callable[[int], BaseSampler]:
    return lambda seed: NSGAIISampler(seed=seed, population_size=size)
