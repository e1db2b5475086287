"""What looks have brought, and so which operators are worth the next ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coralx.records.derivations import Operator
from coralx.records.results import Metrics
from coralx.search.derivation_aims import Aims, Finisher, Look, operator_of
from coralx.search.hypervolume_box import distances, unit_box
from coralx.search.pareto import as_minimised, front, hypervolume
from coralx.search.ranking import violations

RECENT = 4
"""By how many of its latest looks an operator is judged."""

IDLE = 2
"""After so many looks in a row that moved nothing an operator rests until the next generation; one
that never paid in earlier ones after the first."""


HOPE = 1 / 2
"""A look that each operator is taken to have had, which gained so much of the most that any has:
where looks are few, one that pays goes on before all have been tried, and one that was unlucky
once is not given up."""


@dataclass(frozen=True)
class Gain:
    """What a look brought."""

    volume: float
    """By how much the hypervolume grew."""
    moved: bool
    """Whether it is better in an objective than all before, or new on the front."""


def gain_of(aims: Aims, known: Sequence[Metrics], new: Metrics | None) -> Gain:
    """What figures add to those that were known."""
    if new is None:
        return Gain(0.0, moved=False)
    figures = [*known, new]
    points = as_minimised(figures, aims.objectives)
    missed = violations(figures, aims.constraints)
    members = front([str(place) for place in range(len(figures))], points, missed)
    is_new = not any(np.array_equal(points[-1], point, equal_nan=True) for point in points[:-1])
    placed = distances(figures, aims.axes)
    reference = unit_box(aims.axes)[1]
    meets = missed == 0
    before = hypervolume(placed[:-1][meets[:-1]], reference)
    return Gain(
        volume=hypervolume(placed[meets], reference) - before,
        moved=is_new and str(len(known)) in members,
    )


def gains_of(aims: Aims, trained: Sequence[Finisher], looks: Sequence[Look]) -> list[Gain]:
    """What each look brought over what was known by then."""
    gains = []
    for place, look in enumerate(looks):
        known = [
            finisher.metrics
            for finisher in trained
            if finisher.genome.generation <= look.genome.generation
        ]
        known += [one.metrics for one in looks[:place] if one.metrics is not None]
        gains.append(gain_of(aims, known, look.metrics))
    return gains


def promising(
    aims: Aims, trained: Sequence[Finisher], looks: Sequence[Look], generation: int
) -> dict[Operator, float]:
    """The operators that go on in this generation's phase, in the order of their first looks, and
    what the next look of each is expected to bring: the mean of its latest ones and of what may be
    hoped for."""
    gains = gains_of(aims, trained, looks)
    most = max(
        (gain.volume / look.cost for gain, look in zip(gains, looks, strict=True)), default=0
    )
    expected: dict[Operator, float] = {}
    for operator in aims.useful:
        mine = [place for place, look in enumerate(looks) if operator_of(look.genome) == operator]
        now = [gains[k] for k in mine if looks[k].genome.generation == generation]
        before = [gains[k] for k in mine if looks[k].genome.generation < generation]
        never_paid = bool(before) and not any(gain.moved for gain in before)
        idle = next((n for n, gain in enumerate(reversed(now)) if gain.moved), len(now))
        if idle < (1 if never_paid else IDLE):
            spent = sum(looks[k].cost for k in mine[-RECENT:])
            gained = sum(gains[k].volume for k in mine[-RECENT:])
            expected[operator] = (gained + HOPE * most) / (spent + 1)
    return expected
