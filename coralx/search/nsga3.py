"""NSGA-III's selection by reference points (Deb and Jain 2014), for three and more objectives.

It takes the place of crowding inside a front. Points have shape (genomes, objectives) and are to be
minimised. Three things differ from the paper. Nothing is kept between generations, so the ideal
point is that of the given genomes. Extreme points are searched after scaling by the front's extent,
so that units play no role. And each front is put into one order, whose first K are the paper's
choice of K survivors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from coralx.records.run_facts import REVISION
from coralx.search.pareto import Points, Violations, best_first, measured_objectives, ranks

OFF_AXIS = 1e6
"""Weight of the other objectives in the search for the extreme point of one (ASF, equation 4)."""

NEGLIGIBLE = 1e-3
"""A share of the front's extent that counts as 0 in that search."""


@dataclass(frozen=True)
class Niching:
    """What niching needs to know beside the points."""

    places: int
    """How many genomes are to be chosen."""
    rng: np.random.Generator
    """Decides between equals."""


def niched_first(
    ids: Sequence[str],
    points: Points,
    niching: Niching,
    violations: Violations | None = None,
    *,
    keep_first_objective: bool = False,
    revision: int = REVISION,
) -> list[str]:
    """Ids by rank, and within a front of feasible genomes by niching: always from the reference
    point that has the fewest so far, first the genome nearest to its line, later any.

    With fewer than two objectives there is nothing to spread, nor is there among genomes that are
    infeasible or lack a figure: they are ordered as by `pareto.best_first`, which also explains
    `keep_first_objective` and `revision`.
    """
    keep = keep_first_objective
    plain = best_first(ids, points, violations, keep_first_objective=keep, revision=revision)
    figures = measured_objectives(points)
    can_be_niched = ~np.isnan(figures).any(axis=1)
    if violations is not None:
        can_be_niched &= violations == 0
    if figures.shape[1] < 2 or not can_be_niched.any():
        return plain
    # In the order of ids, so that ties do not depend on the order in which genomes are given.
    rows = sorted(np.flatnonzero(can_be_niched).tolist(), key=lambda row: ids[row])
    firsts = points[rows, 0] if keep and not np.isnan(points[rows, 0]).any() else None
    chosen = [ids[rows[member]] for member in _niched(figures[rows], firsts, niching)]
    others = set(ids) - set(chosen)
    return chosen + [name for name in plain if name in others]


def _niched(points: Points, firsts: NDArray[np.float64] | None, niching: Niching) -> list[int]:
    """Rows of `points`, front by front and niche by niche. With `firsts`, each front begins with
    the row that has the least of them."""
    by_rank = ranks(points)
    fronts = [np.flatnonzero(by_rank == rank) for rank in range(int(by_rank.max()) + 1)]
    lines = reference_points(points.shape[1], niching.places)
    niche, distance = associate(normalised(points, fronts, niching.places), lines)
    taken = np.zeros(len(lines), dtype=np.int64)
    order: list[int] = []
    for front in fronts:
        left = set(front.tolist())
        if firsts is not None:
            best = min(left, key=lambda m: (firsts[m], distance[m], m))
            left.remove(best)
            order.append(best)
            taken[niche[best]] += 1
        order += _niche_by_niche(left, niche, distance, taken, niching.rng)
    return order


def _niche_by_niche(
    members: set[int],
    niche: NDArray[np.int64],
    distance: NDArray[np.float64],
    taken: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[int]:
    """Algorithm 4, until no member of the front is left; counts each in `taken`."""
    waiting: dict[int, list[int]] = {}
    for member in sorted(members):
        waiting.setdefault(int(niche[member]), []).append(member)
    order: list[int] = []
    while waiting:
        least = min(taken[place] for place in waiting)
        emptiest = sorted(place for place in waiting if taken[place] == least)
        place = emptiest[int(rng.integers(len(emptiest)))]
        near = waiting[place]
        if least == 0:  # the first of a niche stands for its line, later ones only add to it
            pick = min(near, key=lambda m: (distance[m], m))
        else:
            pick = near[int(rng.integers(len(near)))]
        order.append(pick)
        taken[place] += 1
        near.remove(pick)
        if not near:
            del waiting[place]
    return order


def reference_points(objectives: int, at_least: int) -> Points:
    """Evenly spread points on the unit simplex (Das and Dennis 1998), shape (points, objectives):
    those of the fewest partitions of an axis that give `at_least` so many points.

    There are binomial(objectives + partitions - 1, partitions) of them. `objectives` is at least 2.
    """
    partitions = 1
    while comb(objectives + partitions - 1, partitions) < at_least:
        partitions += 1
    # Stars and bars: each choice of bars splits the partitions among the objectives in one way.
    bars = combinations(range(partitions + objectives - 1), objectives - 1)
    edges = np.asarray([(-1, *bar, partitions + objectives - 1) for bar in bars])
    shares: Points = (np.diff(edges, axis=1) - 1) / partitions
    return shares


def normalised(points: Points, fronts: Sequence[NDArray[np.int64]], places: int) -> Points:
    """Points moved and scaled so that the ideal point is 0 and the hyperplane through the extreme
    points meets every axis at 1 (algorithm 2).

    `fronts` hold rows of `points`, the best first. The fronts that can get one of the `places` set
    the ideal point, the first front sets the extreme points. Where these span no hyperplane, or one
    that does not meet every axis beyond the ideal, the first front's worst on each axis takes its
    place, or where that front has no extent, the worst of the others. No intercept lies beyond that
    worst.
    """
    last = int(np.searchsorted(np.cumsum([len(front) for front in fronts]), places))
    candidates = points[np.concatenate(fronts[: last + 1])]
    ideal = candidates.min(axis=0)
    room = candidates.max(axis=0) - ideal
    front = points[fronts[0]] - ideal
    extent = front.max(axis=0)
    extent = np.where(extent > 0, extent, np.where(room > 0, room, 1.0))
    intercepts = extent * _intercepts(front / extent)
    scaled: Points = (points - ideal) / np.minimum(intercepts, np.maximum(room, extent))
    return scaled


def _intercepts(front: Points) -> NDArray[np.float64]:
    """Where the hyperplane through the extreme points meets the axes, shape (objectives,); at 1,
    the front's own extent, where there is no such plane. `front` is scaled to that extent."""
    width = front.shape[1]
    weights = np.where(np.eye(width) == 1, 1.0, OFF_AXIS)
    beyond = np.where(front < NEGLIGIBLE, 0.0, front)
    achieved = (beyond[None] * weights[:, None]).max(axis=2)
    extremes = front[achieved.argmin(axis=1)]
    if np.linalg.matrix_rank(extremes) < width:
        return np.ones(width)
    plane = np.linalg.solve(extremes, np.ones(width))
    return 1.0 / plane if (plane > 0).all() else np.ones(width)


def associate(points: Points, lines: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The reference point whose line from the origin is nearest to each point, and the
    perpendicular distance to it (algorithm 3); both of shape (points,)."""
    units = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    feet = (points @ units.T)[:, :, None] * units[None]
    distances = np.linalg.norm(points[:, None] - feet, axis=2)
    nearest = distances.argmin(axis=1)
    return nearest, distances[np.arange(len(points)), nearest]
