"""The box in which a run's hypervolume is measured: from the best to the worst value that each
objective can have. It is known before anything is trained, so it does not depend on who came first.

A metric without an end is scaled to below 1 by a function that never reaches it. So there is no
value, however good or bad, beyond which a better one changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from coralx.records.results import Metrics
from coralx.records.run_facts import Axis, Scale
from coralx.search.indicators import MARGIN
from coralx.search.pareto import Points

SCALES: dict[Scale, Callable[[float], float]] = {
    "linear": lambda value: value,
    "log": lambda value: math.log1p(max(value, 0.0)),
    "loss": lambda value: -math.expm1(-max(value, 0.0)),
    "perplexity": lambda value: 1.0 - 1.0 / max(value, 1.0),
    "any": lambda value: value / (1.0 + abs(value)),
}
"""Increasing functions. `loss` of a loss and `perplexity` of its exponential are the same: 1 minus
the probability that the loss stands for. `loss`, `perplexity` and `any` approach 1, `any` from -1.
"""


def unit_box(axes: Sequence[Axis]) -> tuple[Points, Points]:
    """Ideal and reference point for points as `distances` returns them. The reference lies beyond
    1: a genome with the worst value in one objective still counts by its others."""
    return np.zeros(len(axes)), np.full(len(axes), 1.0 + MARGIN)


def distances(figures: Sequence[Metrics], axes: Sequence[Axis]) -> Points:
    """How far each value is from the best possible one, shape (genomes, axes): 0 is the best, 1 the
    worst. A missing value counts as the worst, and one beyond the best as the best."""
    placed = np.ones((len(figures), len(axes)))
    for column, axis in enumerate(axes):
        scaled = SCALES[axis.scale]
        low = -1.0 if axis.low is None else scaled(axis.low)
        high = 1.0 if axis.high is None else scaled(axis.high)
        for row, metrics in enumerate(figures):
            value = metrics.get(axis.metric)
            if value is not None:
                share = (scaled(value) - low) / (high - low)
                placed[row, column] = share if axis.direction == "minimize" else 1.0 - share
    return np.maximum(placed, 0.0)
