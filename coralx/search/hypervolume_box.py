"""The box in which a run's hypervolume is measured: from the best to the worst that each objective
can be, known before anything is trained, so that nothing depends on who came first.

What has no end is brought between 0 and 1 by a function that never gets there, so that there is no
figure, however good or bad, beyond which a better one changes nothing.
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
"""Rising functions. `loss` and `perplexity` are one for a loss and its exponential: 1 less the
probability that it stands for. Those without an upper end rise to 1, `any` from -1."""


def unit_box(axes: Sequence[Axis]) -> tuple[Points, Points]:
    """Ideal and reference point where distances are as `distances` has them. Even the worst figure
    lies within: the other objectives of who has it may be worth something."""
    return np.zeros(len(axes)), np.full(len(axes), 1.0 + MARGIN)


def distances(figures: Sequence[Metrics], axes: Sequence[Axis]) -> Points:
    """How far each figure is from the best that it can be, shape (genomes, axes): 0 is the best,
    which nothing is better than, and 1 the worst, which a missing figure counts as."""
    placed = np.ones((len(figures), len(axes)))
    for row, metrics in enumerate(figures):
        for column, axis in enumerate(axes):
            value = metrics.get(axis.metric)
            if value is not None:
                placed[row, column] = _distance(value, axis)
    return np.maximum(placed, 0.0)


def _distance(value: float, axis: Axis) -> float:
    scaled = SCALES[axis.scale]
    low = -1.0 if axis.low is None else scaled(axis.low)
    high = 1.0 if axis.high is None else scaled(axis.high)
    place = (scaled(value) - low) / (high - low)
    return place if axis.direction == "minimize" else 1.0 - place
