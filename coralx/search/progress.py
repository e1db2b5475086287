"""How much a front gained since an earlier time, on the scale of its own members' figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coralx.config.evolution import Objective
from coralx.records.results import Metrics
from coralx.records.run_facts import Axis
from coralx.search.pareto import Points, as_minimised, hypervolume, ranks

LOGARITHMIC = ("log", "perplexity")
"""Scales of metrics of which ratios matter, so that one poor figure does not outweigh the rest."""

LEAST_EXTENT = 0.25
"""What a side of the box measures at least, as a share of the figure there: were it only what the
members differ by, the first improvement would be large however small it is."""


def volume_gain(
    metrics: Sequence[Metrics],
    was_known: NDArray[np.bool_],
    objectives: Sequence[Objective],
    axes: Sequence[Axis],
) -> float:
    """By which share the hypervolume of the front is greater than that of the earlier front, of
    those genomes that `was_known`, shape (genomes,), marks; infinity where that had none. `axes`
    has one for each objective. Genomes that lack a figure which others have count for nothing.

    Both are measured in the box that the two fronts span, and as far again behind its worst. So a
    better extreme weighs as much as a trade-off between two members, no dominated genome, however
    poor, makes the box larger, and the metrics' units and ranges do not matter.
    """
    points = as_minimised(metrics, objectives)
    is_missing = np.isnan(points)
    columns = np.flatnonzero(~is_missing.all(axis=0)).tolist()
    is_complete = ~is_missing[:, columns].any(axis=1)
    points, was_known = points[is_complete][:, columns], was_known[is_complete]
    if not columns or not was_known.any():
        return math.inf if columns and len(points) else 0.0
    is_member = ranks(points) == 0
    is_member[was_known] |= ranks(points[was_known]) == 0
    members, was_known = points[is_member], was_known[is_member]
    placed = np.empty_like(members)
    for place, column in enumerate(columns):
        placed[:, place] = _placed(members[:, place], axes[column])
    reference = np.full(len(columns), 2.0)
    before = hypervolume(placed[was_known], reference)
    return hypervolume(placed, reference) / before - 1.0


def _placed(figures: Points, axis: Axis) -> Points:
    """Figures of one objective, to be minimised, in units of its side of the box: the worst is at
    1, and 2 is the end behind it."""
    worst = float(figures.max())
    least = abs(_scaled(worst * (1.0 + LEAST_EXTENT), axis) - _scaled(worst, axis))
    best = axis.low if axis.direction == "minimize" else axis.high
    if best is not None:  # near the best possible, what is left to it is all that there is
        signed = best if axis.direction == "minimize" else -best
        least = min(least, max(_scaled(worst, axis) - _scaled(signed, axis), 0.0))
    scaled = np.array([_scaled(figure, axis) for figure in figures.tolist()])
    extent = max(float(scaled.max() - scaled.min()), least) or 1.0
    placed: Points = 1.0 - (scaled.max() - scaled) / extent
    return placed


def _scaled(figure: float, axis: Axis) -> float:
    """On the axis' scale. The sign of what is to be maximised is turned, and stays."""
    if axis.scale not in LOGARITHMIC:
        return figure
    return math.copysign(math.log1p(abs(figure)), figure)
