"""How many trainings a search takes to a good learning rate and rank, with priors and without.

    python benchmarks/priors/trainings_until.py [--sweep RUNS.csv] [--seeds 100]

CoralX's own founders and offspring, on a recorded sweep in place of training. Each model is tried
with a prior that is derived from all others; results are trainings until one is found that lies
within 0.5 % and 1 % of the model's best recorded loss.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from evidence_table import SWEEP, Cells, decoders, sweep_of
from numpy.typing import NDArray

from coralx.config import parse_config
from coralx.config.base_kind import BaseKind
from coralx.config.evidence import SPREAD, learning_rate_prior
from coralx.config.evolution import Evolution, Objective
from coralx.config.gene_forms import FloatRange
from coralx.config.search_space import SearchSpace
from coralx.records.genomes import Genes, Genome
from coralx.search.needless import Seen
from coralx.search.nsga2 import Standing, founders, offspring, survival_order
from coralx.search.space import Space, space_of

FIRST_SEED = 3000
"""Seeds below were looked at when the spread and the steps of mutations were chosen."""

POPULATION = 8
MOST = 48
"""Trainings after which a search ends: six generations. One that found nothing counts as if the
next had."""

TOLERANCES = (0.005, 0.01)
OBJECTIVES = (Objective(metric="eval_loss"),)
DIVERGING = 3e-3
"""The rate at which nearly all combinations are missing that diverged."""

EARLIER = (1e-4, 5e-3)
"""The range of an omitted learning rate before there were priors."""


class Sweep:
    """One model's recorded losses, at the nearest rate and the rank; what diverged has none."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._rates = sorted({rate for rate, _ in cells} | {DIVERGING})
        self.ranks = sorted({rank for _, rank in cells})
        self.best = min(cells.values())

    def loss(self, genes: Genes) -> float | None:
        rate = min(self._rates, key=lambda rate: abs(math.log(rate / genes.learning_rate)))
        return self._cells.get((rate, genes.rank))


def space_for(sweep: Sweep, rate: FloatRange, *, holds_default: bool) -> Space:
    """Rank and learning rate; the common default, whose alpha is once its rank, is held or not."""
    section = {
        "rank": {"choices": sweep.ranks},
        "alpha_ratio": {"choices": [1.0 if holds_default else 2.0]},
        "dropout": {"choices": [0.0]},
        "learning_rate": rate.model_dump(),
    }
    return space_of(parse_config({"search_space": section}, "replay"))


def trainings(sweep: Sweep, space: Space, seed: int) -> list[int]:
    """How many it took to each tolerance; MOST where it was not reached."""
    evolution = Evolution(population_size=POPULATION, generations=MOST)
    genomes: dict[str, Genome] = {}
    standings: dict[str, Standing] = {}
    found: dict[float, int] = {}
    parents: list[str] = []
    newborn = founders(space, POPULATION, seed)
    for generation in range(1, MOST):
        for genome in newborn:
            genomes[genome.id] = genome
            loss = sweep.loss(genome.genes)
            standings[genome.id] = _standing(genome.id, loss)
            for tolerance in TOLERANCES:
                if loss is not None and loss <= sweep.best * (1 + tolerance):
                    found.setdefault(tolerance, len(genomes))
        if len(found) == len(TOLERANCES) or len(genomes) >= MOST or not newborn:
            break
        pool = [standings[name] for name in dict.fromkeys([*parents, *(g.id for g in newborn)])]
        parents = survival_order(pool, OBJECTIVES)[:POPULATION]
        seen = [genome.genes for genome in genomes.values()]
        bred = [genomes[name] for name in parents]
        newborn = offspring(bred, Seen(seen), [], space, evolution, generation, seed)
    return [min(found.get(tolerance, MOST), MOST) for tolerance in TOLERANCES]


def _standing(genome: str, loss: float | None) -> Standing:
    figures = {"eval_loss": loss} if loss is not None else {}
    return Standing(genome, 0 if figures else -1, figures, taken_out=loss is None)


def arms(
    width: int, cells: dict[str, Cells], widths: dict[str, int]
) -> Iterator[tuple[str, FloatRange]]:
    """Names and ranges of the learning rate; `cells` are those of the other models."""
    default = SearchSpace().learning_rate
    if not isinstance(default, FloatRange):
        raise TypeError("the default learning rate is a range")
    low, high = default.low, default.high
    known = learning_rate_prior(BaseKind("decoder", width), decoders(cells, widths))
    yield f"no prior, {low:g} to {high:g}", _range(low, high)
    yield f"no prior, {EARLIER[0]:g} to {EARLIER[1]:g}", _range(*EARLIER)
    yield "prior", _range(low, high, known["prior"])
    yield "prior a decade too low", _range(low, high, known["prior"] / 10)
    yield "prior a decade too high", _range(low, high, known["prior"] * 10)
    yield "spread 0.5", _range(low, high, known["prior"], 0.5)
    yield "spread 0.5, a decade too low", _range(low, high, known["prior"] / 10, 0.5)
    yield "spread 0.5, a decade too high", _range(low, high, known["prior"] * 10, 0.5)


def _range(
    low: float, high: float, prior: float | None = None, spread: float = SPREAD
) -> FloatRange:
    if prior is None:
        return FloatRange(low=low, high=high, log=True)
    return FloatRange(low=low, high=high, log=True, prior=min(max(prior, low), high), spread=spread)


def replay(
    cells: dict[str, Cells], widths: dict[str, int], seeds: Sequence[int], *, holds_default: bool
) -> dict[str, NDArray[np.int_]]:
    """By arm: trainings, shape (models, seeds, tolerances)."""
    results: dict[str, list[list[list[int]]]] = {}
    for model, own in cells.items():
        sweep = Sweep(own)
        others = {name: losses for name, losses in cells.items() if name != model}
        for name, rate in arms(widths[model], others, widths):
            space = space_for(sweep, rate, holds_default=holds_default)
            results.setdefault(name, []).append([trainings(sweep, space, s) for s in seeds])
    return {name: np.array(values) for name, values in results.items()}


def table(results: dict[str, NDArray[np.int_]]) -> str:
    """Markdown; each cell has the figure for 0.5 % and for 1 %."""
    columns = ("mean", "of no prior", "median", "9 of 10", "worst model's mean", "worst")
    lines = [f"| learning rate | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    reference = next(iter(results.values())).mean((0, 1))
    for name, values in results.items():
        mean = values.mean((0, 1))
        cells = (
            _cell(mean, ".1f"),
            _cell(mean / reference, ".2f"),
            _cell(np.median(values, (0, 1)), "g"),
            _cell(np.quantile(values, 0.9, (0, 1)), ".3g"),
            _cell(values.mean(1).max(0), ".1f"),
            _cell(values.max((0, 1)), "g"),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figures: NDArray[np.float64], form: str) -> str:
    return " · ".join(format(float(figure), form) for figure in figures)


def main(arguments: Sequence[str]) -> None:
    """Print a table for spaces that hold the common default, and one for spaces that do not."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--seeds", type=int, default=100)
    given = parser.parse_args(arguments)
    cells, widths = sweep_of(given.sweep)
    seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
    for holds_default, title in ((True, "with"), (False, "without")):
        print(f"\n### Founders {title} the common default\n")
        print(table(replay(cells, widths, seeds, holds_default=holds_default)))


if __name__ == "__main__":
    main(sys.argv[1:])
