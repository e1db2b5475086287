"""Pareto ranks, crowding, and the orders that follow from them.

Every array of points has shape (genomes, objectives) and is to be minimised; `as_minimised` is
the one place where directions are turned. NaN marks a figure that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from moocore import hypervolume as _hypervolume
from moocore import pareto_rank
from numpy.typing import NDArray

from coralx.config.schema import Objective
from coralx.records import Metrics

Points = NDArray[np.float64]


def as_minimised(metrics: Sequence[Metrics], objectives: Sequence[Objective]) -> Points:
    """Objective values as points to be minimised, NaN where a figure is undefined."""
    points = np.full((len(metrics), len(objectives)), np.nan)
    for row, figures in enumerate(metrics):
        for column, objective in enumerate(objectives):
            value = figures.get(objective.metric)
            if value is not None:
                points[row, column] = -value if objective.direction == "maximize" else value
    return points


def ranks(points: Points) -> NDArray[np.int64]:
    """Non-dominated rank of each point, 0 for the front (Deb et al. 2002, section III.A).

    Objectives that no point has are left out; a point that lacks one of the others ranks behind
    all that have it.
    """
    result = np.zeros(len(points), dtype=np.int64)
    if len(points) == 0:
        return result
    measured = points[:, ~np.all(np.isnan(points), axis=0)]
    if measured.shape[1] == 0:
        return result
    complete = ~np.any(np.isnan(measured), axis=1)
    if complete.any():
        result[complete] = _complete_ranks(measured[complete])
    result[~complete] = result[complete].max(initial=-1) + 1
    return result


def _complete_ranks(points: Points) -> NDArray[np.int64]:
    if points.shape[1] == 1:
        return np.unique(points[:, 0], return_inverse=True)[1].astype(np.int64)
    return np.asarray(pareto_rank(points), dtype=np.int64)


def crowding(points: Points) -> NDArray[np.float64]:
    """Crowding distance within one front (Deb et al. 2002, section III.B); extremes inf.

    Equal points share one distance, so that the order of the input never decides between them.
    """
    if len(points) <= 2:
        return np.full(len(points), np.inf)
    distinct, place = np.unique(points, axis=0, return_inverse=True)
    count = len(distinct)
    distance = np.zeros(count)
    for column in range(points.shape[1]):
        values = distinct[:, column]
        if np.isnan(values).any():
            continue
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]]
        distance[order[0]] = distance[order[-1]] = np.inf
        if count > 2 and span > 0:
            distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    shared: NDArray[np.float64] = distance[place]
    return shared


def best_first(
    ids: Sequence[str], points: Points, *, keep_first_objective: bool = False
) -> list[str]:
    """Ids by rank, then crowding (greater first), then id.

    With `keep_first_objective`, each front begins with its best on the first-listed objective, so
    that a cut inside a front keeps that one.
    """
    if not ids:
        return []
    by_rank = ranks(points)
    ordered: list[str] = []
    for rank in np.unique(by_rank):
        members = np.flatnonzero(by_rank == rank).tolist()
        distance = crowding(points[members])
        keys = {ids[m]: (-distance[i], ids[m]) for i, m in enumerate(members)}
        front = sorted(keys, key=lambda genome: keys[genome])
        if keep_first_objective:
            firsts = {ids[m]: points[m, 0] for m in members if not np.isnan(points[m, 0])}
            if firsts:
                best = min(firsts, key=lambda genome: (firsts[genome], *keys[genome]))
                front.remove(best)
                front.insert(0, best)
        ordered += front
    return ordered


def front(ids: Sequence[str], points: Points) -> list[str]:
    """The non-dominated ids, in the order given. Points that lack a figure are not among them."""
    if not ids:
        return []
    complete = ~np.any(np.isnan(points), axis=1)
    by_rank = ranks(points)
    return [ids[i] for i in range(len(ids)) if by_rank[i] == 0 and complete[i]]


def hypervolume(points: Points, reference: Points) -> float:
    """Volume that `points` dominate below `reference` (shape (objectives,)); greater is better."""
    inside = points[np.all(points < reference, axis=1)] if len(points) else points
    return float(_hypervolume(inside, ref=reference)) if len(inside) else 0.0
