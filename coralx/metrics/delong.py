"""The interval of an AUROC, of all rows and of the worst group of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from coralx.metrics.proportion_intervals import LEVEL, Ends, wilson
from coralx.metrics.row_scores import Labels, Probabilities

LEAST_ROWS = 5
"""Rows of each class, below which a variance says nothing about how far an AUROC may be off."""


def auroc_interval(
    probabilities: Probabilities, labels: Labels, value: float, level: float = LEVEL
) -> Ends | None:
    """Of the AUROC, one against the rest with more than two classes; None with too few rows.

    Wilson's interval of as many independent rows as give a share of that size the AUROC's
    variance: DeLong's (DeLong et al. 1988, equations 4 to 6, by ranks as in Sun and Xu 2014), or
    if it is greater Hanley and McNeil's (1982, equation 2), as by Newcombe (2006, method 5).
    DeLong's is too small where hardly any pair is in the wrong order, Hanley and McNeil's where
    the two classes spread very differently.
    """
    classes = probabilities.shape[1]
    sizes = np.bincount(labels, minlength=classes)
    if sizes.min() < LEAST_ROWS:
        return None
    parts = {c: _parts(probabilities[:, c], labels == c) for c in _scored_classes(classes)}
    separate = sum(_variance(own, labels) for own in parts.values())
    modelled = sum(_modelled(own, labels == c) for c, own in parts.items())
    # With several classes their AUROCs share rows: DeLong's variance of the mean sees that, Hanley
    # and McNeil's does not, so the latter only says by how much the former is too small.
    joint = _variance(np.mean(list(parts.values()), axis=0), labels)
    variance = joint * max(1.0, modelled / separate) if separate else 0.0
    binomial = value * (1.0 - value)
    # Where all pairs are in order, or all wrong, no variance tells how many rows the AUROC is
    # worth: no more than those of the rarest class.
    rows = binomial / variance if variance and binomial else float(sizes.min())
    return wilson(value, rows, level)


def worst_interval(
    groups: Sequence[tuple[Probabilities, Labels, float]], level: float = LEVEL
) -> Ends | None:
    """Of the lowest AUROC among groups, each with its rows and its AUROC.

    From the lowest lower end to the lowest upper end. The true figure lies below the lower end only
    if the worst group's own interval misses (Berger 1982, intersection-union). It lies above the
    upper end if any group's upper end misses, so the groups share the error of the upper ends
    (Bonferroni).
    """
    lows, highs = [], []
    for probabilities, labels, value in groups:
        own = auroc_interval(probabilities, labels, value, level)
        wider = auroc_interval(probabilities, labels, value, 1.0 - (1.0 - level) / len(groups))
        if own is None or wider is None:
            return None
        lows.append(own[0])
        highs.append(wider[1])
    return (min(lows), min(highs)) if groups else None


def _scored_classes(classes: int) -> Sequence[int]:
    return [1] if classes == 2 else range(classes)


def _parts(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What each row adds to the AUROC, shape (rows,): the share of the rows of the other side that
    it is in the right order with, ties counting half, over the number of rows on its own side.
    Either side sums to the AUROC."""
    ranks = rankdata(scores)
    parts = np.empty(len(scores))
    for side in (positive, ~positive):
        others = len(scores) - np.count_nonzero(side)
        # A rank among all rows less that among one's own counts the other side's rows below.
        below = (ranks[side] - rankdata(scores[side])) / others
        parts[side] = (below if side is positive else 1.0 - below) / np.count_nonzero(side)
    return parts


def _variance(parts: NDArray[np.float64], labels: Labels) -> float:
    """DeLong's variance, S10 / m + S01 / n, for rows drawn class by class."""
    return sum(
        float(parts[labels == c].var(ddof=1)) * np.count_nonzero(labels == c)
        for c in np.unique(labels)
    )


def _modelled(parts: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Hanley and McNeil's variance, for two exponential distributions, with the mean of the two
    class sizes in the place of each (Newcombe 2006, method 5)."""
    auc = float(parts[positive].sum())
    positives = np.count_nonzero(positive)
    negatives = len(positive) - positives
    mean_size = (positives + negatives) / 2.0
    spread = (1.0 - auc) / (2.0 - auc) + auc / (1.0 + auc)
    return auc * (1.0 - auc) * (1.0 + (mean_size - 1.0) * spread) / (positives * negatives)
