"""Who of two parents wins a binary tournament.

Deb et al. 2002 compare by rank, then crowding (section III.C); their own program, and pymoo, by
domination, then crowding. We do as the program does: two genomes of which neither dominates the
other are then told apart by crowding even where their ranks differ. On ZDT2, comparing ranks loses
the front's spread for good in about every third run, with our operators as with pymoo's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coralx.config.conditions import Condition
from coralx.config.evolution import Objective
from coralx.records.run_facts import REVISION
from coralx.search.nsga2 import Standing
from coralx.search.pareto import as_minimised, domination, front_crowding
from coralx.search.ranking import violations

Contest = Callable[[int, int], int]
"""Of two places in a population, the one that wins."""


def tournament(
    standings: Sequence[Standing],
    objectives: Sequence[Objective],
    constraints: Sequence[Condition] = (),
    *,
    by_crowding: bool = True,
    revision: int = REVISION,
) -> Contest:
    """The contest within a population, whose standings are given the best first.

    Who completed a further stage wins, there the sound over those taken out; figures of different
    stages are never compared. Then who dominates, constraints and missing figures considered, and
    then who is less crowded within its front, or the earlier place. Without `by_crowding`
    (NSGA-III), of two equals the first drawn wins, that is, either by chance. `revision` is that of
    the run.
    """
    count = len(standings)
    groups = [(-standing.place, standing.taken_out) for standing in standings]
    points = as_minimised([standing.metrics for standing in standings], objectives)
    distance = np.zeros(count)
    beats = np.zeros((count, count), dtype=bool)
    for group in set(groups):
        members = [place for place in range(count) if groups[place] == group]
        missed = violations([standings[m].metrics for m in members], constraints)
        distance[members] = front_crowding(points[members], missed, revision)
        beats[np.ix_(members, members)] = domination(points[members], missed)

    def winner(first: int, second: int) -> int:
        if groups[first] != groups[second]:
            return min(first, second, key=lambda place: groups[place])
        if beats[first, second] or beats[second, first]:
            return first if beats[first, second] else second
        if not by_crowding:
            return first
        return min(first, second, key=lambda place: (-distance[place], place))

    return winner
