"""Which schedule keeps the best most cheaply: a search over a grid, on recorded learning curves.

A schedule is played on cohorts of recorded configurations, as a generation goes through it, and
costs what that generation would. Its regret is the best full result of a cohort less the best of
those that it brings to the end. Of all schedules whose mean regret is within the tolerance on every
table, the cheapest is taken.

A schedule that was chosen on some curves looks better on these than it is. So it is chosen again
without a fold of the configurations, and judged by the cohorts whose best is in that fold: those
that depend on a genome that the choice has not seen. Every cohort is judged so once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import NDArray

from coralx.schedule.cohort_regret import (
    Estimate,
    Floats,
    Members,
    all_cohorts,
    best_first,
    drawn_cohorts,
    estimate,
)
from coralx.schedule.tuning_costs import Prices, Rung, Schedule
from coralx.schedule.tuning_curves import TRAINING, CurveTable

Mask = NDArray[np.bool_]
Places = NDArray[np.signedinteger]

SHARES = tuple(Fraction(n, 40) for n in (1, 2, 3, 4, 6, 8, 12, 16, 20, 28))
"""Shares of a whole training at which stages may end."""

ROWS = (64, 128, 256, 512)
"""Validation rows that a stage may score."""

MOST_RUNGS = 2
"""Stages before the last one; a third makes what keeps to the tolerance 3 to 6 % cheaper, and the
search many times as long (`benchmarks/fidelity`)."""

FOLDS = 5
TOLERANCES = tuple(Fraction(multiple) for multiple in ("1/4", "1/2", "1", "2", "4"))
"""The tolerances of the table of costs against regrets, as multiples of the one asked for."""

SEARCHED, SEARCHED_IN_FOLD, JUDGED = 1024, 384, 8192
"""Cohorts that the search goes by, in all and without each fold, and that judge what it found."""

MOST_ENUMERATED = 25_000
"""So many cohorts are all judged; of more, some are drawn."""


@dataclass(frozen=True)
class Grid:
    """The schedules that are considered."""

    shares: tuple[Fraction, ...]
    rows: tuple[int, ...]
    figures: tuple[str, ...]
    population: int
    deepest: int = MOST_RUNGS
    """Stages before the last one, at most."""

    @property
    def kept(self) -> tuple[int, ...]:
        """Of one population: how many may go on from a stage."""
        parts = {math.floor(self.population * share) for share in (0.75, 0.5, 0.375, 0.25, 0.125)}
        return tuple(sorted({*parts, 1, 2, 3} & set(range(1, self.population)), reverse=True))

    def after(self, rungs: Sequence[Rung]) -> Iterator[Rung]:
        """What a stage after these may be: later, smaller, and scored on no fewer rows."""
        last = rungs[-1] if rungs else Rung(Fraction(0), 0, self.population)
        return (
            Rung(share, rows, kept, figure)
            for share, (rows, figure), kept in product(self.shares, self._looks, self.kept)
            if share > last.share and kept < last.kept and (rows >= last.rows or figure == TRAINING)
        )

    @property
    def _looks(self) -> list[tuple[int, str]]:
        """How many rows a stage scores and what it ranks by: as few as may be for the training
        loss, which is there without."""
        looks = [*product(self.rows, (f for f in self.figures if f != TRAINING))]
        return looks + [(self.rows[0], TRAINING)] * (TRAINING in self.figures)


class Cohorts:
    """Cohorts of a table's configurations, and what a stage would see of them."""

    def __init__(self, table: CurveTable, members: Members, draws: np.random.Generator) -> None:
        self.table, self.members = table, members
        self.full: Floats = table.full[members]
        self._best: Floats = self.full.max(axis=1)
        # One draw for all stages: they score the same first rows, so luck is not drawn anew.
        self._luck = draws.standard_normal(members.shape)
        self._ranks: dict[tuple[str, Fraction, int], Places] = {}

    def _places(self, rung: Rung) -> Places:
        """Of each member at the stage's end, 0 for the best."""
        key = rung.figure, rung.share, rung.rows
        if key not in self._ranks:
            values, noise = self.table.at(rung.share, rung.figure, rung.rows)
            order = best_first(values[self.members] + noise[self.members] * self._luck)
            size = order.shape[1]
            places = np.arange(size, dtype=np.int8 if size < 127 else np.int64)  # int8 is fast
            ranks: Places = np.empty(order.shape, dtype=places.dtype)
            np.put_along_axis(ranks, order, np.broadcast_to(places, order.shape), axis=1)
            self._ranks[key] = ranks
        return self._ranks[key]

    def going_on(self, rung: Rung, entered: Mask) -> Mask:
        """Who goes on: in the shape of `members`, as is `entered`."""
        ranks = self._places(rung)
        places = np.where(entered, ranks, ranks.dtype.type(self.members.shape[1]))
        worst = np.partition(places, rung.kept - 1, axis=1)[:, rung.kept - 1 : rung.kept]
        return np.asarray(entered & (places <= worst))

    def regrets(self, finishers: Mask) -> Floats:
        """Of each cohort."""
        return np.asarray(self._best - np.where(finishers, self.full, -np.inf).max(axis=1))

    def regrets_of(self, schedule: Schedule) -> Floats:
        """Of each cohort under a schedule."""
        alive = np.ones(self.members.shape, dtype=bool)
        for rung in schedule.rungs:
            if rung.kept < alive[0].sum():
                alive = self.going_on(rung, alive)
        return self.regrets(alive)


@dataclass(frozen=True)
class Candidates:
    """What the search has found: schedules, their costs, and their mean regrets over tolerances.

    `regrets` has shape (schedules, tables, 1 + 2 x folds): over all cohorts, over those without
    each fold, and the part in the mean of those whose best is in each fold.
    """

    schedules: tuple[Schedule, ...]
    costs: Floats
    regrets: Floats

    def cheapest(self, within: float, column: int = 0, tables: Sequence[int] = ()) -> int:
        """The cheapest whose mean regret is `within` so many tolerances on each of the tables (all
        of them, unless some are named); of equals the one with the least regret. To train all to
        the end always is."""
        regrets = self.regrets[:, :, column]
        worst = (regrets[:, list(tables)] if tables else regrets).max(axis=1)
        fitting = np.flatnonzero(worst <= within)
        return int(fitting[np.lexsort((worst[fitting], self.costs[fitting]))[0]])

    def held_out(self, within: float) -> Floats:
        """The mean regret on each table of what is chosen without those whom it is judged by."""
        folds = (self.regrets.shape[2] - 1) // 2
        parts = [
            self.regrets[self.cheapest(within, 1 + fold), :, 1 + folds + fold]
            for fold in range(folds)
        ]
        return np.asarray(np.sum(parts, axis=0))


def search(
    tables: Sequence[CurveTable],
    grid: Grid,
    prices: Prices,
    draws: np.random.Generator,
    *,
    progress: Callable[[float], None],
) -> Candidates:
    """Play the grid's schedules on cohorts of every table, but for those that nobody would choose.

    Each table needs a few more configurations than a population has, see `fewest_curves`.
    `progress` is told the share that is done.
    """
    folds = _folds(tables, grid.population, draws)
    played = [_searched(table, folds, grid.population, draws) for table in tables]
    found: list[tuple[Schedule, float, Floats]] = []

    def descend(rungs: tuple[Rung, ...], alive: list[Mask], spent: float) -> None:
        last = rungs[-1] if rungs else Rung(Fraction(0), 0, grid.population)
        means = np.array(
            [
                cohorts.regrets(mask) @ weights / cohorts.table.tolerance
                for (cohorts, weights), mask in zip(played, alive, strict=True)
            ]
        )
        if _is_hopeless(means):
            return  # further cuts only add to it
        found.append((Schedule(rungs), spent + last.kept * prices.ending(last.share), means))
        following = list(grid.after(rungs)) if len(rungs) < grid.deepest else []
        for place, rung in enumerate(following):
            if not rungs:
                progress(place / len(following))
            masks = [
                cohorts.going_on(rung, mask)
                for (cohorts, _), mask in zip(played, alive, strict=True)
            ]
            descend((*rungs, rung), masks, spent + last.kept * prices.rung(rung, last.share))

    descend((), [np.ones(cohorts.members.shape, dtype=bool) for cohorts, _ in played], 0.0)
    schedules, costs, regrets = zip(*found, strict=True)
    return Candidates(schedules, np.array(costs), np.array(regrets))


def _is_hopeless(regrets: Floats) -> bool:
    """Whether nobody would choose the schedule: not on all tables, not on all but one, and not
    without a fold. `regrets` are those of `Candidates`."""
    choosing = regrets[:, : (regrets.shape[1] + 1) // 2]
    worst_but_one = np.sort(choosing, axis=0)[-min(2, len(choosing))]
    return bool(worst_but_one.min() > float(TOLERANCES[-1]))


def fewest_curves(population: int) -> int:
    """Configurations that a table needs at least."""
    return population + 4


def _folds(
    tables: Sequence[CurveTable], population: int, draws: np.random.Generator
) -> dict[str, int]:
    """The fold of each configuration: one for each where larger folds would leave too few."""
    names = sorted({name for table in tables for name in table.configurations})
    fewest = min(len(table) for table in tables)
    count = FOLDS if fewest - math.ceil(fewest / FOLDS) > population else len(names)
    places = draws.permutation(len(names))
    return {name: int(place) % count for name, place in zip(names, places, strict=True)}


def _searched(
    table: CurveTable, folds: dict[str, int], population: int, draws: np.random.Generator
) -> tuple[Cohorts, Floats]:
    """The cohorts that the search plays on, and the weights of the means in `Candidates`."""
    own = np.array([folds[name] for name in table.configurations])
    count = 1 + max(folds.values())
    numbers = np.arange(len(table))
    parts = [drawn_cohorts(numbers, population, SEARCHED, draws)]
    for fold in range(count):
        outside = np.flatnonzero(own != fold)
        parts.append(drawn_cohorts(outside, population, SEARCHED_IN_FOLD, draws))
    cohorts = Cohorts(table, np.concatenate(parts), draws)
    weights = np.zeros((len(cohorts.members), 1 + 2 * count))
    weights[:SEARCHED, 0] = 1 / SEARCHED
    best = cohorts.full[:SEARCHED].argmax(axis=1)
    winners = own[cohorts.members[np.arange(SEARCHED), best]]
    for fold in range(count):
        start = SEARCHED + fold * SEARCHED_IN_FOLD
        weights[start : start + SEARCHED_IN_FOLD, 1 + fold] = 1 / SEARCHED_IN_FOLD
        weights[:SEARCHED, 1 + count + fold] = (winners == fold) / SEARCHED
    return cohorts, weights


@dataclass(frozen=True)
class Regret:
    """What a schedule loses on one table, in the metric's unit."""

    mean: Estimate
    """Over cohorts, with the interval for other configurations from the same space."""
    often: float
    """Nine of ten cohorts lose no more."""
    behind: float
    """The mean distance of a cohort's best finisher from the best of the whole table."""


def judged(
    schedule: Schedule, table: CurveTable, population: int, draws: np.random.Generator
) -> Regret | None:
    """The regret of a schedule over all cohorts of a table, or over many that are drawn. None where
    the table does not tell what a stage of it would see."""
    cutting, entered = [], population
    for rung in schedule.rungs:
        cutting += [rung] if rung.kept < entered else []
        entered = rung.kept
    if any(not table.reaches(rung.share) for rung in cutting):
        return None
    if math.comb(len(table), population) <= MOST_ENUMERATED:
        members = all_cohorts(len(table), population)
    else:
        members = drawn_cohorts(np.arange(len(table)), population, JUDGED, draws)
    cohorts = Cohorts(table, members, draws)
    lost = cohorts.regrets_of(Schedule(tuple(cutting)))
    to_best = table.full.max() - cohorts.full.max(axis=1) + lost
    mean = estimate(lost, members, len(table))
    return Regret(mean, float(np.quantile(lost, 0.9)), float(to_best.mean()))
