"""P6 `calibration`: whether probabilities mean what they say; and the same after one correction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from coralx.objectives.scores import Labels, Probabilities

BINS = 15

SMALLEST = 1e-12
"""Probabilities below this one count as so much where their logarithm is taken."""

COLDEST, HOTTEST = 0.01, 100.0
"""Between these the temperature is looked for."""


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


def temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature T that minimises the negative log-likelihood of these rows (Guo et al. 2017,
    section 4.2), on validation: for validation itself it is fitted to the rows that it is judged
    by, which one number cannot spoil much; for the test split it is not."""
    logs = _logs(probabilities)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def scaled(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities of the same logits divided by the temperature; the order of the classes
    stays. `calibration_scaled` is the expected calibration error of these."""
    cooled: Probabilities = softmax(_logs(probabilities) / temperature, axis=1)
    return cooled


def _logs(probabilities: Probabilities) -> NDArray[np.float64]:
    return np.log(np.clip(probabilities, SMALLEST, None))
