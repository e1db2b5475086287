"""What looks have brought, and so which operators are worth the next ones."""

from __future__ import annotations

from collections import Counter
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
    is_lacking = np.isnan(points)
    is_same = (points[:-1] == points[-1]) | (is_lacking[:-1] & is_lacking[-1])
    is_new = not is_same.all(axis=1).any()
    placed = distances(figures, aims.axes)
    reference = unit_box(aims.axes)[1]
    meets = missed == 0
    before = hypervolume(placed[:-1][meets[:-1]], reference)
    return Gain(
        volume=hypervolume(placed[meets], reference) - before,
        moved=is_new and str(len(known)) in members,
    )


class Gains:
    """What looks have brought, each worked out once in a run: figures that were known then never
    change, so that their number says which they are."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Gain] = {}
        """By look, and how many figures were known before it."""

    def of(self, aims: Aims, trained: Sequence[Finisher], looks: Sequence[Look]) -> list[Gain]:
        """What each look brought over what was known by then: finishers up to its generation, and
        the looks before it."""
        born = Counter(finisher.genome.generation for finisher in trained)
        scored: list[Metrics] = []
        gains = []
        for look in looks:
            newest = look.genome.generation
            finishers = sum(count for generation, count in born.items() if generation <= newest)
            key = look.genome.id, finishers + len(scored)
            if key not in self._known:
                known = [one.metrics for one in trained if one.genome.generation <= newest]
                self._known[key] = gain_of(aims, [*known, *scored], look.metrics)
            gains.append(self._known[key])
            if look.metrics is not None:
                scored.append(look.metrics)
        return gains


def promising(
    aims: Aims, looks: Sequence[Look], gains: Sequence[Gain], generation: int
) -> dict[Operator, float]:
    """The operators that go on in this generation's phase, in the order of their first looks, and
    what the next look of each is expected to bring: the mean of what its latest ones brought, see
    `gains`, and of what may be hoped for."""
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
