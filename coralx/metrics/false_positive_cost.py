"""P3 `false_positive_cost`: what 90 % recall costs in false alarms, 0 to 1, to be minimised.

The false-positive rate on a clean hold-out, flagging whatever looks at least as suspicious as the
threshold that gives 90 % recall on the validation positives. That is the point FPR at TPR = 0.9 of
the ROC curve (Fawcett 2006, section 4), but the threshold is chosen on one set of rows and the rate
measured on another. Without a hold-out, the negative rows of the split itself stand for it.
Undefined where validation has no positive row, or where there is no clean one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coralx.metrics.row_scores import Labels, Probabilities

RECALL = 0.9


def suspicion(probabilities: Probabilities) -> NDArray[np.float64]:
    """The probability of any class but the first, negative one, shape (rows,)."""
    of_others: NDArray[np.float64] = probabilities[:, 1:].sum(axis=1)
    return of_others


def positives(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """How suspicious the positive rows look, shape (positive rows,)."""
    return suspicion(probabilities)[labels > 0]


def threshold(positives: NDArray[np.float64]) -> float | None:
    """The greatest suspicion that still flags 90 % of the positive rows; None without a row."""
    if not len(positives):
        return None
    return float(np.sort(positives)[::-1][flagged_of(len(positives)) - 1])


def flagged_of(positives: int) -> int:
    """How many of so many positive rows the threshold has to flag."""
    return math.ceil(RECALL * positives)


def rate(suspicions: NDArray[np.float64], threshold: float | None) -> float | None:
    """The share of rows whose suspicion, shape (rows,), reaches the threshold: of clean rows
    `false_positive_cost`, of attacks `safety`, of positive rows `recall_at_threshold`."""
    if threshold is None or not len(suspicions):
        return None
    return float((suspicions >= threshold).mean())
