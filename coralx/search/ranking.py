"""The order of genomes: first by constraints, then by the objectives of the config, spread by
NSGA-II's crowding or NSGA-III's niching."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from coralx.config.conditions import Condition, parse_constraint
from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import SPREAD
from coralx.config.schema import Config
from coralx.records.results import Metrics
from coralx.records.run_facts import REVISION
from coralx.rng import generator
from coralx.search.nsga3 import Niching, niched_first
from coralx.search.pareto import (
    Violations,
    as_minimised,
    best_first,
    merged_within_spread,
    ranks,
)

TOUCHING = sys.float_info.epsilon
"""The violation of a figure that lies on a strict bound: infeasible, by the least possible."""


def constraints_of(config: Config) -> tuple[Condition, ...]:
    """The constraints of a config."""
    return tuple(parse_constraint(text) for text in config.constraints)


def objectives_of(config: Config, promote_by: str | None) -> tuple[Objective, ...]:
    """What a stage ranks by: the metric of its `promote_by`, else the config's objectives."""
    if promote_by is None:
        return tuple(config.objectives)
    return (Objective(metric=promote_by, direction=config.direction_of(promote_by)),)


def niching_of(
    config: Config, places: int, purpose: str, generation: int, index: int | str = 0
) -> Niching | None:
    """What NSGA-III needs to choose genomes for so many `places`; None under NSGA-II."""
    if config.evolution.selection == "nsga2":
        return None
    return Niching(places, generator(config.experiment.seed, purpose, generation, index))


def ranked(
    ids: Sequence[str],
    metrics: Sequence[Metrics],
    objectives: Sequence[Objective],
    constraints: Sequence[Condition] = (),
    niching: Niching | None = None,
    *,
    keep_first_objective: bool = False,
    revision: int = REVISION,
) -> list[str]:
    """Ids, best first: the feasible by non-dominated rank, then the infeasible by violation; within
    a front by crowding, or with `niching` by reference points. Ties are broken by id, and under
    niching by its generator.

    With `keep_first_objective`, each front begins with its best on the first-listed objective.
    `revision` is that of the run.
    """
    points = as_minimised(metrics, objectives)
    missed = violations(metrics, constraints)
    keep = keep_first_objective
    if niching is None:
        return best_first(ids, points, missed, keep_first_objective=keep, revision=revision)
    return niched_first(ids, points, niching, missed, keep_first_objective=keep, revision=revision)


def by_rank_and_first(
    ids: Sequence[str],
    metrics: Sequence[Metrics],
    objectives: Sequence[Objective],
    constraints: Sequence[Condition] = (),
) -> list[str]:
    """Ids by non-dominated rank, constraints considered; within a front by the objective that is
    listed first, then by id. Unlike `ranked` it asks who is better alone, not who adds to the
    spread, so that orders at two times can be compared."""
    points = as_minimised(metrics, objectives)
    by_rank = ranks(points, violations(metrics, constraints))
    firsts = np.nan_to_num(points[:, 0], nan=np.inf)
    keys = zip(by_rank.tolist(), firsts.tolist(), ids, strict=True)
    return [genome for _, _, genome in sorted(keys)]


def violations(metrics: Sequence[Metrics], constraints: Sequence[Condition]) -> Violations:
    """By how much each genome misses the constraints, shape (genomes,); 0 where all hold.

    A violation is a sum over constraints (Deb et al. 2002, section VI), each normalised: the
    distance to the threshold as a share of the threshold's size, or as it is where that is 0. A
    missing figure is the worst, inf. A constraint on a metric for which none of these genomes has a
    figure is left out.
    """
    total = np.zeros(len(metrics))
    for constraint in constraints:
        values = [figures.get(constraint.metric) for figures in metrics]
        if all(value is None for value in values):
            continue
        spreads = [figures.get(constraint.metric + SPREAD) for figures in metrics]
        total += [_missed_by(constraint, v) for v in _merged_misses(constraint, values, spreads)]
    return total


def _merged_misses(
    constraint: Condition, values: Sequence[float | None], spreads: Sequence[float | None]
) -> Sequence[float | None]:
    """The figures, with measurements that miss the constraint and lie within their spread made
    equal. Those that keep it stay as they are: whether one keeps it must not depend on others."""
    if not any(spreads):
        return values
    misses = np.array(
        [np.nan if v is None or constraint.holds_for(v) else v for v in values], dtype=np.float64
    )
    merged = merged_within_spread(misses, spreads)
    return [
        value if np.isnan(miss) else float(miss) for value, miss in zip(values, merged, strict=True)
    ]


def _missed_by(constraint: Condition, value: float | None) -> float:
    if value is None:
        return float("inf")
    if constraint.holds_for(value):
        return 0.0
    size = abs(constraint.threshold) or 1.0
    return max(abs(value - constraint.threshold) / size, TOUCHING)
