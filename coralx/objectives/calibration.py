"""Whether probabilities mean what they say."""

from __future__ import annotations

import numpy as np

from coralx.objectives.skill import Labels, Probabilities

BINS = 15


def calibration(probabilities: Probabilities, labels: Labels) -> float | None:
    """Expected calibration error over the most probable class, 15 equal-width bins, 0 to 1, to be
    minimised (Guo et al. 2017, equation 3). A bin holds confidences in (low, high]."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(labels))
