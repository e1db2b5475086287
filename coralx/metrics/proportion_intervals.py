"""Intervals of shares, and how intervals of parts become those of a mean or of a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

Ends = tuple[float, float]

LEVEL = 0.95
"""How often an interval is to cover the true figure."""


def wilson(share: float, rows: float, level: float = LEVEL) -> Ends:
    """The score interval of a share of so many rows (Wilson 1927; Newcombe 1998, method 3). It
    holds the share, and has a width even where all rows are alike. `rows` need not be whole: how
    many independent rows the share is worth."""
    z = float(norm.ppf((1.0 + level) / 2.0))
    centre = share + z * z / (2.0 * rows)
    reach = z * math.sqrt(share * (1.0 - share) / rows + z * z / (4.0 * rows * rows))
    low, high = ((centre + side * reach) / (1.0 + z * z / rows) for side in (-1.0, 1.0))
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # against rounding


def effective_rows(hits: NDArray[np.float64], clusters: NDArray[np.int64] | None) -> float:
    """How many independent rows a share is worth whose rows, shape (rows,), come in clusters (each
    row's by number; None: every row is a cluster), such as rewritings of one row.

    So many independent rows would have the binomial variance that the clusters show (Kish 1965,
    section 8.2, design effect). The number is reduced by as much as Student's t, with one degree of
    freedom less than there are clusters, is wider than a normal (Korn and Graubard 1998, section
    2). It is no more than there are rows, and no fewer than if all rows of a cluster were alike,
    which is also assumed where all rows are alike: they show no variance.
    """
    if clusters is None:
        return float(len(hits))
    _, cluster = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(cluster).astype(np.float64)
    fewest = float(len(hits) ** 2 / (sizes**2).sum())
    share = float(hits.mean())
    deviations = np.bincount(cluster, weights=hits) - share * sizes
    variance = float((deviations**2).sum()) * len(sizes) / max(len(sizes) - 1, 1) / len(hits) ** 2
    if not variance:
        return fewest
    tail = (1.0 + LEVEL) / 2.0
    reduction = float(norm.ppf(tail) / student.ppf(tail, max(len(sizes) - 1, 1))) ** 2
    worth = reduction * share * (1.0 - share) / variance
    return min(max(worth, reduction * fewest), float(len(hits)))


def of_mean(values: Sequence[float], ends: Sequence[Ends], *, dependent: bool = False) -> Ends:
    """The interval of the mean of figures with intervals of their own (MOVER; Zou and Donner 2008,
    equation 5). The figures are independent, or, if `dependent`, their errors are taken to point
    the same way."""
    if dependent:
        return float(np.mean([low for low, _ in ends])), float(np.mean([high for _, high in ends]))
    mean = float(np.mean(values))
    below = math.hypot(*(v - low for v, (low, _) in zip(values, ends, strict=True)))
    above = math.hypot(*(high - v for v, (_, high) in zip(values, ends, strict=True)))
    return mean - below / len(values), mean + above / len(values)


def of_difference(
    first: float, first_ends: Ends, second: float, second_ends: Ends, correlation: float = 0.0
) -> Ends:
    """The interval of `first` less `second` from those of the two and their correlation (MOVER;
    Zou 2007, equation 15)."""
    (low, high), (other_low, other_high) = first_ends, second_ends
    below = _combined(first - low, other_high - second, correlation)
    above = _combined(high - first, second - other_low, correlation)
    return first - second - below, first - second + above


def _combined(one: float, other: float, correlation: float) -> float:
    """How far a difference may be off whose sides are off so far (law of cosines)."""
    return math.sqrt(max(one * one + other * other - 2.0 * correlation * one * other, 0.0))
