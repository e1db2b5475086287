"""P3 `false_positive_cost`: what the wanted recall costs in false alarms, 0 to 1, to be minimised.

The false-positive rate on a clean hold-out, flagging whatever looks at least as suspicious as the
threshold that gives 90 % recall on the validation positives: the point (FPR at TPR = 0.9) of the
ROC curve (Fawcett 2006, section 4), its threshold settled on one set of rows, its price on another.
Without a hold-out, the negative rows of the split itself stand for it. Undefined where validation
has no positive row, or where there is no clean one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coralx.objectives.scores import Labels, Probabilities

RECALL = 0.9


def suspicion(probabilities: Probabilities) -> NDArray[np.float64]:
    """The probability of any class but the first, negative one, shape (rows,)."""
    found: NDArray[np.float64] = probabilities[:, 1:].sum(axis=1)
    return found


def threshold(probabilities: Probabilities, labels: Labels) -> float | None:
    """The greatest suspicion that still flags 90 % of the positive rows; None without one."""
    positive = np.sort(suspicion(probabilities)[labels > 0])[::-1]
    if not len(positive):
        return None
    return float(positive[math.ceil(RECALL * len(positive)) - 1])


def false_positive_cost(clean: NDArray[np.float64], threshold: float | None) -> float | None:
    """The share of clean rows whose suspicion, shape (rows,), reaches the threshold."""
    if threshold is None or not len(clean):
        return None
    return float((clean >= threshold).mean())
