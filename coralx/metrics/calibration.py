"""P6 `calibration`: how far stated probabilities lie from how often they come true; its interval;
and `calibration_scaled`, the same after temperature scaling."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import norm

from coralx.metrics.proportion_intervals import LEVEL, Ends
from coralx.metrics.row_scores import Labels, Probabilities
from coralx.rng import generator

BINS = 15

ONE_SIDED = (1.0 + LEVEL) / 2.0
"""How often one end of an interval is to hold."""

SMALLEST = 1e-12
"""Probabilities below it are raised to it before their logarithm is taken."""

COLDEST, HOTTEST = 0.01, 100.0
"""The temperatures among which the best is looked for."""


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
    # ceil - 1 puts a confidence that lies on an edge into the bin below it; clip, that of 0.
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return bins, (probabilities.argmax(axis=1) == labels) - confidence


def calibration_interval(
    probabilities: Probabilities, labels: Labels, seed: int, resamples: int
) -> Ends:
    """The 95 % interval of the expected calibration error, which the error lies within.

    The error of a sample is that of all rows plus noise that only adds to it: it is a sum of
    absolute values, one a bin, and a model without any error shows some (Broecker 2012; Kumar et
    al. 2019, section 5). So with m the bins' mean gaps in the sample and M those of all rows,

    - |m| - |M| <= |m - M| (triangle inequality): the lower end is the error less the 97.5 %
      quantile of |m - M|, the greater of two estimates: by the variance of the gaps, and, as if the
      model were calibrated, by binomial draws in each bin (consistency resampling, Broecker and
      Smith 2007);
    - |M| - |m| <= s (M - m), with s the signs of M: a mean over rows, whose variance is that of a
      row's gap. Two right and two wrong rows of the mean confidence are added to it (Agresti and
      Coull 1998): a sample without a wrong row does not show that there is none.
    """
    rows = len(labels)
    bins, gaps = bin_gaps(probabilities, labels)
    confidence = probabilities.max(axis=1)
    error = calibration(probabilities, labels)
    rng = generator(seed, "calibration")
    by_variance = _sampling_noise(bins, gaps, rng, resamples)
    if_calibrated = _error_if_calibrated(bins, confidence, rng, resamples)
    noise = max(float(np.quantile(drawn, ONE_SIDED)) for drawn in (by_variance, if_calibrated))
    added = 2.0 * ((1.0 - confidence.mean()) ** 2 + confidence.mean() ** 2)
    variance = max(float((gaps**2).sum() + added) / (rows + 4) - error**2, 0.0)
    reach = float(norm.ppf(ONE_SIDED)) * math.sqrt(variance / rows)
    return max(0.0, error - noise), min(1.0, error + reach)


def _sampling_noise(
    bins: NDArray[np.int64], gaps: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """How far the bins' mean gaps lie from those of all rows, shape (resamples,): a normal draw a
    bin, of the variance that the gaps of its rows have."""
    variance = np.bincount(bins, weights=gaps**2, minlength=BINS)
    deviations = np.sqrt(variance) * rng.standard_normal((resamples, BINS))
    noise: NDArray[np.float64] = np.abs(deviations).sum(axis=1) / len(gaps)
    return noise


def _error_if_calibrated(
    bins: NDArray[np.int64],
    confidence: NDArray[np.float64],
    rng: np.random.Generator,
    resamples: int,
) -> NDArray[np.float64]:
    """The error that a calibrated model of this confidence would show, shape (resamples,)."""
    sizes = np.bincount(bins, minlength=BINS)
    expected = np.bincount(bins, weights=confidence, minlength=BINS)
    chance = np.clip(expected / np.maximum(sizes, 1), 0.0, 1.0)
    right = rng.binomial(sizes, chance, size=(resamples, BINS))
    error: NDArray[np.float64] = np.abs(right - expected).sum(axis=1) / len(bins)
    return error


# -- temperature scaling ---------------------------------------------------------------------------


def temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature T that minimises the negative log-likelihood of these rows (Guo et al. 2017,
    section 4.2). It is fitted on validation, so on validation itself `calibration_scaled` is a
    little too good: not by much, with one number fitted to all rows. On the test split it is
    fair."""
    logits = _logits(probabilities)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        divided = logits / np.exp(log_temperature)
        return float((logsumexp(divided, axis=1) - divided[rows, labels]).mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    fit = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(fit.x))


def scaled(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities of the same logits divided by the temperature; the order of the classes
    stays. `calibration_scaled` is the expected calibration error of these."""
    logits = _logits(probabilities) / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: Probabilities = weights / weights.sum(axis=1, keepdims=True)
    return softmax


def _logits(probabilities: Probabilities) -> NDArray[np.float64]:
    """Log-probabilities, shape (rows, classes). They serve for logits: those of a row that differ
    by a constant give the same probabilities at every temperature."""
    return np.log(np.clip(probabilities, SMALLEST, None))
