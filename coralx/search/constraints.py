"""Constraints: what must hold of a genome, and by how much one misses it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from coralx.config.metrics import SPREAD
from coralx.config.rules import ParsedRule, parse_constraint
from coralx.config.schema import Config
from coralx.results import Metrics
from coralx.search.pareto import Violations, untold

TOUCHING = sys.float_info.epsilon
"""The violation of a figure that lies on a strict bound: infeasible, by as little as can be."""


def constraints_of(config: Config) -> tuple[ParsedRule, ...]:
    """The constraints of a config."""
    return tuple(parse_constraint(text) for text in config.constraints)


def violations(metrics: Sequence[Metrics], constraints: Sequence[ParsedRule]) -> Violations:
    """By how much each genome misses the constraints, shape (genomes,); 0 where all hold.

    A violation is a sum over constraints (Deb et al. 2002, section VI), each normalised: the
    distance to the threshold as a share of the threshold's size, or as it is where that is 0. A
    missing figure is the worst, inf. A constraint on a metric that none of these genomes has a
    figure for is left out.
    """
    total = np.zeros(len(metrics))
    for constraint in constraints:
        values = [figures.get(constraint.metric) for figures in metrics]
        if any(value is not None for value in values):
            spreads = [figures.get(constraint.metric + SPREAD) for figures in metrics]
            total += [_missed_by(constraint, v) for v in _untold(constraint, values, spreads)]
    return total


def _untold(
    constraint: ParsedRule, values: Sequence[float | None], spreads: Sequence[float | None]
) -> Sequence[float | None]:
    """The figures; of those that miss the constraint, measurements within their spread made equal.
    Whether one misses it at all is no matter of the others."""
    if not any(spreads):
        return values
    missing = np.array(
        [np.nan if v is None or constraint.holds_for(v) else v for v in values], dtype=np.float64
    )
    shared = untold(missing, spreads)
    return [
        value if np.isnan(one) else float(one) for value, one in zip(values, shared, strict=True)
    ]


def _missed_by(constraint: ParsedRule, value: float | None) -> float:
    if value is None:
        return float("inf")
    if constraint.holds_for(value):
        return 0.0
    size = abs(constraint.threshold) or 1.0
    return max(abs(value - constraint.threshold) / size, TOUCHING)
