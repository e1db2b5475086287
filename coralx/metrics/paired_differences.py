"""The interval of the difference of two models' figures on the same rows."""

from __future__ import annotations

import numpy as np

from coralx.config.metric_catalogue import split_metric_name
from coralx.metrics.proportion_intervals import Ends, of_difference
from coralx.metrics.resampled_figures import Resampled
from coralx.records.results import Interval

BIASED_BY_RESAMPLING = ("calibration", "calibration_scaled", "robustness")
"""Figures that resampling moves to one side, so that how two models' vary together over resamples
says nothing about how their errors do."""


def difference_interval(
    metric: str, first: Interval, second: Interval, drawn: tuple[Resampled, Resampled]
) -> Ends | None:
    """Of `first` less `second`, from the intervals of the two and from how their figures vary
    together over the same resamples; None where one has no interval."""
    known: list[tuple[float, Ends]] = []
    for side in (first, second):
        if side.value is None or side.low is None or side.high is None:
            return None
        known.append((side.value, (side.low, side.high)))
    name, _ = split_metric_name(metric)
    correlated = 0.0 if name in BIASED_BY_RESAMPLING else correlation(*drawn)
    return of_difference(*known[0], *known[1], correlated)


def correlation(first: Resampled, second: Resampled) -> float:
    """Of two figures over the same resamples; 0 where one of them is constant."""
    defined = np.isfinite(first) & np.isfinite(second)
    one, other = first[defined], second[defined]
    if len(one) < 2 or not one.std() or not other.std():
        return 0.0
    return float(np.clip(np.corrcoef(one, other)[0, 1], -1.0, 1.0))  # rounding may exceed 1
