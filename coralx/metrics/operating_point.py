"""The interval of a share of rows that reach the threshold at which recall is 90 %.

The threshold is chosen on the positive rows of validation, which are a sample too, so it may lie
above or below the one that has this recall in the population. The interval covers both errors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, binom

from coralx.metrics.false_positive_cost import RECALL
from coralx.metrics.proportion_intervals import LEVEL, Ends, effective_rows

LEAST_POSITIVES = 36
"""With fewer positive rows of validation, all of them lie above the true threshold in more than
2.5 % of samples, and then nothing bounds it from below: 0.9 ** 36 < 0.025."""


def rate_interval(
    suspicions: NDArray[np.float64],
    positives: NDArray[np.float64],
    threshold: float,
    clusters: NDArray[np.int64] | None = None,
) -> Ends | None:
    """Of the share of rows whose `suspicions`, shape (rows,), reach the threshold that has 90 %
    recall in the population, of whose positive rows `positives` are a sample; None where that is
    too small. Rows of one number in `clusters`, shape (rows,), are not independent.

    How many of the sample lie below that threshold is a binomial draw of so many rows at 10 %: the
    threshold lies between two neighbouring positives whose places are known up to that draw (David
    and Nagaraja 2003, section 7.1). At each place the share has Jeffreys' interval (Brown et al.
    2001, section 4.1). These are mixed by the places' probabilities: for the lower end at the upper
    neighbour, for the upper end at the lower one. The share at `threshold`, as it was chosen, lies
    within.
    """
    if len(positives) < LEAST_POSITIVES:
        return None
    ordered = np.sort(positives)
    weights = binom.pmf(np.arange(len(ordered) + 1), len(ordered), 1.0 - RECALL)
    hits = (suspicions >= threshold).astype(np.float64)
    rows = effective_rows(hits, clusters)
    ascending = np.sort(suspicions)

    def rates(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1.0 - np.searchsorted(ascending, thresholds, side="left") / len(ascending)

    # Below the lowest positive and above the highest there is no neighbour: an infinite one.
    tail = (1.0 - LEVEL) / 2.0
    low = _quantile(rates(np.append(ordered, np.inf)), weights, rows, tail)
    high = _quantile(rates(np.append(-np.inf, ordered)), weights, rows, 1.0 - tail)
    share = float(hits.mean())
    return min(low, share), max(high, share)


def _quantile(
    rates: NDArray[np.float64], weights: NDArray[np.float64], rows: float, level: float
) -> float:
    """Of the mixture of Jeffreys' posteriors of shares `rates` of so many rows."""
    likely = weights > weights.max() * 1e-9  # the others change no digit, and cost time
    hits, shares = rates[likely] * rows, weights[likely] / weights[likely].sum()

    def excess(value: float) -> float:
        return float(shares @ beta.cdf(value, hits + 0.5, rows - hits + 0.5)) - level

    return float(brentq(excess, 0.0, 1.0, xtol=1e-9))
