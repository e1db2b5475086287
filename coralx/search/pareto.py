"""Pareto ranks, crowding, and the orders that follow from them.

Every array of points has shape (genomes, objectives) and is to be minimised. `as_minimised` turns
directions, by `minimised` as everything does, and makes measurements equal that differ by no more
than their spread. NaN marks a missing figure. `violations`, of shape (genomes,), is by how much
each genome misses the constraints: 0 for the feasible, which come before all others (constrained
domination, Deb et al. 2002, section VI). None: there are no constraints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from moocore import hypervolume as _hypervolume
from moocore import pareto_rank
from numpy.typing import NDArray

from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import SPREAD
from coralx.records.results import Metrics
from coralx.records.run_facts import REVISION

Points = NDArray[np.float64]
Violations = NDArray[np.float64]


def as_minimised(metrics: Sequence[Metrics], objectives: Sequence[Objective]) -> Points:
    """Objective values as points to be minimised, NaN where a figure is undefined. Measurements
    that lie within their spread of each other, or are linked by others that do, share a mean."""
    points = np.full((len(metrics), len(objectives)), np.nan)
    for row, figures in enumerate(metrics):
        for column, objective in enumerate(objectives):
            value = figures.get(objective.metric)
            if value is not None:
                points[row, column] = minimised(value, objective)
    for column, objective in enumerate(objectives):
        spreads = [figures.get(objective.metric + SPREAD) for figures in metrics]
        if any(spreads):
            points[:, column] = merged_within_spread(points[:, column], spreads)
    return points


def minimised(value: float, objective: Objective) -> float:
    """A value of an objective, to be minimised."""
    return -value if objective.direction == "maximize" else value


def merged_within_spread(values: Points, spreads: Sequence[float | None]) -> Points:
    """The values, shape (genomes,), of which those are made equal that lie within the spread of one
    of them. Equality must be transitive, so a chain of such pairs becomes one value, its mean."""
    defined = np.flatnonzero(~np.isnan(values))
    order = defined[np.argsort(values[defined], kind="stable")]
    ordered, reach = values[order], np.array([spread or 0.0 for spread in spreads])[order]
    # A chain ends between two neighbours if no value up to the first reaches the second, and no
    # value from the second on reaches back to the first.
    above = np.maximum.accumulate(ordered + reach)
    below = np.minimum.accumulate((ordered - reach)[::-1])[::-1]
    apart = (above[:-1] < ordered[1:]) & (below[1:] > ordered[:-1])
    result: Points = values.copy()
    for chain in np.split(order, np.flatnonzero(apart) + 1):
        if len(chain) > 1:
            result[chain] = values[chain].mean()
    return result


def measured_objectives(points: Points) -> Points:
    """The columns of the objectives in which at least one point has a figure."""
    kept: Points = points[:, ~np.all(np.isnan(points), axis=0)]
    return kept


def ranks(points: Points, violations: Violations | None = None) -> NDArray[np.int64]:
    """Rank of each point by constrained domination, 0 for the front (Deb et al. 2002, sections
    III.A and VI): the feasible by non-domination, behind them the infeasible by violation, with
    equal ranks for equal violations.

    Objectives in which no point has a figure are left out; a point that lacks a figure in another
    ranks behind all that have it.
    """
    result = np.zeros(len(points), dtype=np.int64)
    figures = measured_objectives(points)
    if figures.size == 0:  # nothing to compare by: all are equal
        figures = np.zeros((len(points), 1))
    missed = np.zeros(len(points)) if violations is None else violations
    lacking = np.any(np.isnan(figures), axis=1)
    behind = 0  # the rank behind all groups so far
    for incomplete, violation in sorted(set(zip(lacking.tolist(), missed.tolist(), strict=True))):
        members = (lacking == incomplete) & (missed == violation)
        if not incomplete and violation == 0:
            result[members] = _complete_ranks(figures[members])
        else:
            result[members] = behind
        behind = int(result[members].max()) + 1
    return result


def domination(points: Points, violations: Violations | None = None) -> NDArray[np.bool_]:
    """Whether point i dominates point j under the constraints, shape (genomes, genomes): only j
    lacks a figure; or i violates less; or both are feasible, and i is nowhere worse and somewhere
    better. Objectives in which no point has a figure are left out."""
    figures = measured_objectives(points)
    lacking = np.any(np.isnan(figures), axis=1)
    missed = np.zeros(len(points)) if violations is None else violations
    less = (missed[:, None] < missed) & (lacking[:, None] == lacking)
    comparable = ~lacking & (missed == 0)
    no_worse = np.all(figures[:, None] <= figures, axis=2)
    better = no_worse & ~no_worse.T & comparable[:, None] & comparable
    beats: NDArray[np.bool_] = (lacking[:, None] < lacking) | less | better
    return beats


def _complete_ranks(points: Points) -> NDArray[np.int64]:
    """Ranks of points that lack no figure."""
    if points.shape[1] == 1:
        return np.unique(points[:, 0], return_inverse=True)[1].astype(np.int64)
    return np.asarray(pareto_rank(points), dtype=np.int64)


def crowding(points: Points, revision: int = REVISION) -> NDArray[np.float64]:
    """Crowding distance within one front (Deb et al. 2002, section III.B); extremes inf.

    Of equal points the first has the distance that it would have alone, and the others have 0: they
    add nothing to the spread (Fortin and Parizeau 2013, "Revisiting the NSGA-II crowding-distance
    computation"). So points must come in the order in which ties are to be broken.
    """
    if len(points) == 1:  # the rule where there is one objective
        return np.array([np.inf])
    # NaN is never equal to NaN, also not to `unique`.
    distinct, first, place = np.unique(
        np.nan_to_num(points, nan=np.inf), axis=0, return_index=True, return_inverse=True
    )
    distinct[np.isinf(distinct)] = np.nan
    if revision < 2:  # then equal points shared one distance, and one or two points were extremes
        return _distances(distinct)[place] if len(points) > 2 else np.full(len(points), np.inf)
    distance = np.zeros(len(points))
    distance[first] = _distances(distinct)
    return distance


def _distances(distinct: Points) -> NDArray[np.float64]:
    """Crowding distances of points of which no two are equal."""
    count = len(distinct)
    if count <= 2:
        return np.full(count, np.inf)
    distance = np.zeros(count)
    for column in range(distinct.shape[1]):
        values = distinct[:, column]
        if np.isnan(values).any():  # a gap to a missing figure has no length
            continue
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]]
        distance[order[0]] = distance[order[-1]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return distance


def front_crowding(
    points: Points, violations: Violations | None = None, revision: int = REVISION
) -> NDArray[np.float64]:
    """Each point's crowding distance within the front that it belongs to; see `crowding`."""
    by_rank = ranks(points, violations)
    distance = np.zeros(len(points))
    for rank in np.unique(by_rank):
        members = by_rank == rank
        distance[members] = crowding(points[members], revision)
    return distance


def best_first(
    ids: Sequence[str],
    points: Points,
    violations: Violations | None = None,
    *,
    keep_first_objective: bool = False,
    revision: int = REVISION,
) -> list[str]:
    """Ids by rank, then crowding distance (greater first), then id. `revision` is that of the run.

    With `keep_first_objective`, each front begins with its best on the first-listed objective, so
    that a cut inside a front keeps that one.
    """
    if not ids:
        return []
    # In the order of ids: of equal points, `crowding` gives the first a distance.
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    ids, points = [ids[place] for place in by_id], points[by_id]
    violations = violations[by_id] if violations is not None else None
    by_rank = ranks(points, violations)
    distance = front_crowding(points, violations, revision)
    ordered: list[str] = []
    for rank in np.unique(by_rank):
        members = np.flatnonzero(by_rank == rank).tolist()
        keys = {ids[m]: (-distance[m], ids[m]) for m in members}
        front = sorted(keys, key=lambda genome: keys[genome])
        if keep_first_objective:
            firsts = {ids[m]: points[m, 0] for m in members if not np.isnan(points[m, 0])}
            if firsts:
                best = min(firsts, key=lambda genome: (firsts[genome], *keys[genome]))
                front.remove(best)
                front.insert(0, best)
        ordered += front
    return ordered


def front(ids: Sequence[str], points: Points, violations: Violations | None = None) -> list[str]:
    """The non-dominated ids, in the order given. Points that lack a figure which others have are
    not among them; objectives in which no point has a figure are left out.

    Where no point is feasible, it is those that miss the constraints the least.
    """
    complete = ~np.any(np.isnan(measured_objectives(points)), axis=1)
    by_rank = ranks(points, violations)
    return [ids[i] for i in range(len(ids)) if by_rank[i] == 0 and complete[i]]


def hypervolume(points: Points, reference: Points) -> float:
    """Volume that `points` dominate below `reference` (shape (objectives,)); greater is better."""
    inside = points[np.all(points < reference, axis=1)] if len(points) else points
    return float(_hypervolume(inside, ref=reference)) if len(inside) else 0.0
