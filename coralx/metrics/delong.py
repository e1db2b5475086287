"""The interval of an AUROC, of all rows and of the worst group of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from coralx.metrics.proportion_intervals import LEVEL, Ends, wilson
from coralx.metrics.row_scores import Labels, Probabilities

LEAST_ROWS = 5
"""Of each class: with fewer there is no telling how far an AUROC may be off."""


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
    against = {c: _parts(probabilities[:, c], labels == c) for c in _wanted(classes)}
    each = sum(_variance(parts, labels) for parts in against.values())
    modelled = sum(_modelled(parts, labels == c) for c, parts in against.items())
    joint = _variance(np.mean(list(against.values()), axis=0), labels)
    variance = joint * max(1.0, modelled / each) if each else 0.0
    in_order_or_not = value * (1.0 - value)
    rows = in_order_or_not / variance if variance and in_order_or_not else float(sizes.min())
    return wilson(value, rows, level)


def worst_interval(
    groups: Sequence[tuple[Probabilities, Labels, float]], level: float = LEVEL
) -> Ends | None:
    """Of the lowest AUROC among groups, each with its rows and its AUROC.

    From the lowest lower end to the lowest upper end. That the lowest figure lies below the former
    takes the worst group's own interval to miss (Berger 1982, intersection-union); that it lies
    above the latter takes some group's upper end to miss, so these ends share what may miss among
    them (Bonferroni).
    """
    lows, highs = [], []
    for probabilities, labels, value in groups:
        found = auroc_interval(probabilities, labels, value, level)
        wider = auroc_interval(probabilities, labels, value, 1.0 - (1.0 - level) / len(groups))
        if found is None or wider is None:
            return None
        lows.append(found[0])
        highs.append(wider[1])
    return (min(lows), min(highs)) if groups else None


def _wanted(classes: int) -> Sequence[int]:
    return [1] if classes == 2 else range(classes)


def _parts(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What each row adds to the AUROC, shape (rows,): over the size of its side, the share of the
    other side that it is on the right side of, ties counting half. Either side sums to the AUROC.
    """
    ranks = rankdata(scores)
    found = np.empty(len(scores))
    for mine in (positive, ~positive):
        others = len(scores) - np.count_nonzero(mine)
        below = (ranks[mine] - rankdata(scores[mine])) / others
        found[mine] = (below if mine is positive else 1.0 - below) / np.count_nonzero(mine)
    return found


def _variance(parts: NDArray[np.float64], labels: Labels) -> float:
    """DeLong's variance, S10 / m + S01 / n, for rows drawn class by class."""
    return sum(
        float(parts[labels == c].var(ddof=1)) * np.count_nonzero(labels == c)
        for c in np.unique(labels)
    )


def _modelled(parts: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Hanley and McNeil's variance, for two exponential distributions, with the mean of the two
    class sizes in the place of each (Newcombe 2006, method 5)."""
    area = float(parts[positive].sum())
    wanted = np.count_nonzero(positive)
    others = len(positive) - wanted
    balanced = (wanted + others) / 2.0 - 1.0
    spread = (1.0 - area) / (2.0 - area) + area / (1.0 + area)
    return area * (1.0 - area) * (1.0 + balanced * spread) / (wanted * others)
