"""`coralx simulate --tune-schedule`: from recorded curves to stages for a config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from coralx.api.curve_files import read_curves
from coralx.api.earlier_runs import EarlierRun, read_run
from coralx.api.quality import Quality, quality_of
from coralx.api.run_curves import HOW_TO_GET, measured_prices, run_tables
from coralx.config import Config
from coralx.config.hyperband import EARLY_EVAL_LIMIT
from coralx.config.mode import mode_of
from coralx.errors import UsageError
from coralx.rng import generator
from coralx.schedule.stages import FEWEST_STEPS, longest_epoch, planned_stages
from coralx.schedule.tuning import (
    ROWS,
    SHARES,
    TOLERANCES,
    Candidates,
    Grid,
    Regret,
    fewest_curves,
    judged,
    search,
)
from coralx.schedule.tuning_costs import EVALUATION, OVERHEAD, Prices, Rung, Schedule
from coralx.schedule.tuning_curves import LOSS, METRIC, TRAINING, CurveTable, common_shares
from coralx.text import counted, shown

CSV = ".csv"
SEED = 0
"""Cohorts are drawn the same in every call."""

USUAL_ROWS = 2_000.0
"""Rows that a training is taken to read where neither config nor curves say so."""


@dataclass(frozen=True)
class Choice:
    """A schedule, and what it is expected to cost and to lose."""

    schedule: Schedule
    cost: float
    """Of a generation, in whole trainings."""
    regrets: tuple[Regret | None, ...]
    """By table; None: its curves do not tell."""
    held_out: tuple[float, ...] = ()
    """By table: the mean regret of what is chosen on other configurations."""
    from_others: tuple[float | None, ...] = ()
    """By table: the mean regret there of what is chosen on the other tables alone."""
    within: Fraction | None = None
    """For which multiple of the tolerances it was chosen."""


@dataclass(frozen=True)
class Tuning:
    """What the curves say of schedules for a config."""

    tables: tuple[CurveTable, ...]
    population: int
    prices: Prices
    basis: tuple[str, ...]
    """Where prices and sizes come from, in words."""
    current: Choice
    """The config's own schedule, as if it ranked by the metric alone."""
    choices: tuple[Choice, ...]
    """The cheapest schedule for each of `TOLERANCES`."""

    @property
    def proposal(self) -> Choice:
        """The one for the tolerance that was asked for."""
        return next(choice for choice in self.choices if choice.within == 1)


def tune(
    config: Config,
    sources: Sequence[str],
    qualities: Sequence[Quality],
    tolerance: float | None,
    *,
    progress: Callable[[float], None] | None = None,
) -> Tuning:
    """The cheapest schedules on the curves of CSV files and runs.

    Raises UsageError for what is neither, for curves that cannot be read, and where they are too
    few.
    """
    population = config.evolution.births(0)
    wanted = list(qualities) or [quality_of(config)]
    tables, runs = _read(config, sources, wanted, tolerance)
    _require_enough(tables, population, HOW_TO_GET if runs else "")
    prices, basis = _prices(config, tables, runs)
    grid, more = _grid(config, tables, prices, population)
    found = search(tables, grid, prices, generator(SEED, "tuning"), progress=progress or _ignore)

    def choice(schedule: Schedule, **known: Any) -> Choice:
        cost = prices.cost(schedule, population) / prices.whole
        draws = [generator(SEED, "judging", index=place) for place in range(len(tables))]
        pairs = zip(tables, draws, strict=True)
        regrets = tuple(judged(schedule, table, population, own) for table, own in pairs)
        return Choice(schedule, cost, regrets, **known)

    return Tuning(
        tables=tuple(tables),
        population=population,
        prices=prices,
        basis=(*basis, *more),
        current=choice(_current(config, prices, population)),
        choices=tuple(
            choice(
                found.schedules[found.cheapest(float(within))],
                held_out=_in_units(found.held_out(float(within)), tables),
                from_others=_from_others(found, tables, float(within)),
                within=within,
            )
            for within in TOLERANCES
        ),
    )


def _ignore(share: float) -> None:
    """Nobody waits."""


def _read(
    config: Config, sources: Sequence[str], qualities: Sequence[Quality], tolerance: float | None
) -> tuple[list[CurveTable], list[EarlierRun]]:
    names = list(dict.fromkeys(sources or config.evolution.learn_from))
    if not names:
        raise UsageError(
            "--tune-schedule needs learning curves",
            "Name CSV files or finished runs after it: --tune-schedule curves.csv RUN. "
            "docs/search.md says what they hold.",
        )
    if tolerance is not None and len({quality.name for quality in qualities}) > 1:
        raise UsageError(
            "one --tolerance cannot serve several metrics, which have units of their own",
            "Leave it out, or name one --metric.",
        )
    tables: list[CurveTable] = []
    runs: list[EarlierRun] = []
    for name in names:
        if name.lower().endswith(CSV):
            tables += read_curves(Path(name), qualities, tolerance)
        else:
            runs.append(_run(config, name))
    for quality in qualities if runs else ():
        tables += run_tables(runs, quality, tolerance)
    return tables, runs


def _run(config: Config, name: str) -> EarlierRun:
    run = read_run(name, "tune on", "Or leave it out of --tune-schedule.")
    is_simulated = mode_of(config) == "simulation" or config.model.base is None
    if run.facts.backend == "simulated" and not is_simulated:
        raise UsageError(
            f"cannot tune on {shown(name)}: it was simulated, so its figures say nothing about "
            "real training",
            "Leave it out of --tune-schedule.",
        )
    return run


def _require_enough(tables: Sequence[CurveTable], population: int, hint: str) -> None:
    """Raise UsageError where a table has too few configurations; `hint` says how to get more."""
    fewest = fewest_curves(population)
    for table in tables:
        if len(table) < fewest:
            raise UsageError(
                f"{table.name}: {counted(len(table), 'curve')} with a known end, but to judge "
                f"generations of {population} takes {fewest} at least",
                f"Name more curves, or set a smaller evolution.population_size. {hint}".rstrip(),
            )


def _prices(
    config: Config, tables: Sequence[CurveTable], runs: Sequence[EarlierRun]
) -> tuple[Prices, list[str]]:
    """What a genome of the config costs, and where that is known from."""
    last = config.hyperband_config.training_stages[-1]
    epochs = float(last.epoch_budget * last.data_percentage / 100)
    recorded = [table.training_rows for table in tables if table.training_rows]
    if config.known_rows:
        training, source = config.known_rows * epochs, "the config"
    elif recorded:
        training, source = float(np.mean(recorded)), "the curves"
    else:
        training, source = USUAL_ROWS, "no source: set data.steps_per_epoch or data.limit"
    validation = [run.facts.rows["validation"] for run in runs]
    scored = max(validation, default=0) or EARLY_EVAL_LIMIT
    basis = [f"a training reads {training:,.0f} rows ({source}), its end is scored on {scored:,}"]
    measured = measured_prices(runs)
    evaluation = measured.evaluation if measured else EVALUATION
    overhead = measured.overhead if measured else OVERHEAD
    basis.append(
        f"scoring a row costs {evaluation:.2f} of training on it, and each stage "
        f"{overhead:.0f} rows beside ("
        + (f"measured in {counted(measured.runs, 'run')})" if measured else "the usual)")
    )
    return Prices(training, scored, evaluation, overhead), basis


def _grid(
    config: Config, tables: Sequence[CurveTable], prices: Prices, population: int
) -> tuple[Grid, list[str]]:
    """What is considered for the config on these tables, and what is not, in words."""
    own = {s for table in tables for known in table.checkpoints[:1] for s in known if s < 1}
    shares = common_shares(tables, [*SHARES, *(own if len(own) <= len(SHARES) else ())])
    if not shares:
        raise UsageError(
            f"{' and '.join(table.name for table in tables)} tell nothing of genomes before "
            "their end, where a stage could cut",
            HOW_TO_GET,
        )
    if config.known_rows:
        last = planned_stages(config, config.known_rows)[-1]
        steps = last.planned_steps(longest_epoch(config, config.known_rows))
        long_enough = [share for share in shares if share * steps >= FEWEST_STEPS]
        if not long_enough:
            raise UsageError(
                f"no stage before the last one has {FEWEST_STEPS} steps, the fewest that tell "
                f"anything: a training has {float(steps):,.0f}"
            )
        shares = long_enough
    figures = _figures(tables)
    rows, remarks = _row_counts(config, tables, prices, figures)
    return Grid(tuple(shares), tuple(rows), tuple(figures), population), remarks


def _figures(tables: Sequence[CurveTable]) -> list[str]:
    """What stages may rank by on all tables: each kind once, where they differ."""
    figures = [METRIC]
    if all(LOSS in table.signals for table in tables) and any(
        table.signals[LOSS] is not table.signals[METRIC] for table in tables
    ):
        figures.append(LOSS)
    if all(TRAINING in table.signals for table in tables):
        figures.append(TRAINING)
    return figures


def _row_counts(
    config: Config, tables: Sequence[CurveTable], prices: Prices, figures: Sequence[str]
) -> tuple[list[int], list[str]]:
    """How many rows stages may score, and what the curves do not tell of that, in words."""
    scored = [kind for kind in figures if kind != TRAINING]
    if not any(table.signals[METRIC].knows_its_noise for table in tables):
        limits = [stage.eval_limit for stage in config.hyperband_config.training_stages[:-1]]
        own = max((limit for limit in limits if limit), default=EARLY_EVAL_LIMIT)
        rows = min(own, prices.validation)
        return [rows], [
            "the curves do not tell what fewer rows would show (no `eval_rows`, or no standard "
            f"error): every stage scores {rows}"
        ]
    remarks = []
    if not all(table.signals[kind].knows_its_noise for table in tables for kind in scored):
        remarks.append("curves without `eval_rows` count as if any number of rows showed the same")
    return [rows for rows in ROWS if rows <= prices.validation] or [prices.validation], remarks


def _current(config: Config, prices: Prices, population: int) -> Schedule:
    """The config's own schedule."""
    stages = planned_stages(config, config.known_rows)
    whole = stages[-1].planned_steps(1)
    rungs, entered = [], population
    for stage in stages[:-1]:
        entered = stage.quota(entered)
        limit = stage.eval_limit or prices.validation
        rows = min(limit, prices.validation) if stage.is_scored else 0
        rungs.append(Rung(stage.planned_steps(1) / whole, rows, entered))
    return Schedule(tuple(rungs))


def _in_units(multiples: Any, tables: Sequence[CurveTable]) -> tuple[float, ...]:
    """Regrets over tolerances, in the metrics' units."""
    pairs = zip(multiples, tables, strict=True)
    return tuple(float(multiple) * table.tolerance for multiple, table in pairs)


def _from_others(
    found: Candidates, tables: Sequence[CurveTable], within: float
) -> tuple[float | None, ...]:
    if len(tables) == 1:
        return (None,)
    regrets = list[float | None]()
    for place, table in enumerate(tables):
        others = [number for number in range(len(tables)) if number != place]
        chosen = found.cheapest(within, tables=others)
        regrets.append(float(found.regrets[chosen, place, 0]) * table.tolerance)
    return tuple(regrets)
