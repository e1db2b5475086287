"""P6 `calibration`: whether probabilities mean what they say; and the same after one correction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coralx.objectives.scores import Labels, Probabilities

BINS = 15

SMALLEST = 1e-12
"""Probabilities below this one count as so much where their logarithm is taken."""


def calibration(probabilities: Probabilities, labels: Labels) -> float:
    """Expected calibration error over the most probable class, 15 equal-width bins, 0 to 1, to be
    minimised (Guo et al. 2017, equation 3). A bin holds confidences in (low, high]."""
    bins, gaps = bin_gaps(probabilities, labels)
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=BINS)).sum() / len(labels))


def bin_gaps(
    probabilities: Probabilities, labels: Labels
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each row's bin, and whether its most probable class is right minus that class's
    probability; both of shape (rows,)."""
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return bins, (probabilities.argmax(axis=1) == labels) - confidence


def scaled(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities of the same logits divided by the temperature; the order of the classes
    stays. `calibration_scaled` is the expected calibration error of these."""
    values = logs(probabilities) / temperature
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    cooled: Probabilities = weights / weights.sum(axis=1, keepdims=True)
    return cooled


def logs(probabilities: Probabilities) -> NDArray[np.float64]:
    """Log-probabilities, which serve for logits: those that differ by a constant of the row scale
    alike. Of shape (rows, classes)."""
    return np.log(np.clip(probabilities, SMALLEST, None))
