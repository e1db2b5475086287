"""Which of two candidates wins a binary tournament and becomes a parent.

Deb et al. 2002 compare by rank, then crowding (section III.C); their own program, and pymoo, by
domination, then crowding. Here it is as in the program: of two genomes neither of which dominates
the other, the less crowded wins even where their ranks differ. On ZDT2, comparing ranks loses the
front's spread for good in about every third run, with these operators as with pymoo's.
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

    The genome that completed a later stage wins, in one stage any over those taken out; figures of
    different stages are never compared. Then the one that dominates wins, constraints and missing
    figures considered, then the less crowded within its front, then the earlier place. Without
    `by_crowding` (NSGA-III), of two equals the first drawn wins, that is, either by chance.
    `revision` is that of the run.
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
