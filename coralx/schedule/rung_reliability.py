"""How well a stage ranks what comes later, estimated from genomes that went through to the end.

The model: on the scale of normal scores, the final figure is r f(x) plus noise, where x is the
stage's. Nothing but ranks counts, and those of one generation are compared with each other only.
Given x, the order at the end does not depend on how finishers were chosen by x. So those whom the
stage let pass by rank and the control group enter alike, and no selection biases the estimate
(missing at random: Rubin 1976, "Inference and missing data").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CORRELATIONS = np.linspace(-0.95, 0.95, 39)
"""The r that are told apart."""

SHAPES: tuple[Callable[[Floats], Floats], ...] = (
    lambda x: x,
    lambda x: np.minimum(x, 0.0),
    lambda x: -np.abs(x),
)
"""The f: the better the figure the better the end; only poor figures tell something; the best at
the end come from the middle. The last two happen where fast learners are no good learners, and a
straight line alone would take few genomes at the top for the best ones."""

GROUP = 8
"""A stage is judged by whether it keeps the best of so many."""

_CELLS = 64
_SCORES = np.array([NormalDist().inv_cdf((i + 0.5) / _CELLS) for i in range(_CELLS)])
_LEVELS = np.linspace(-5.0, 5.0, 161)
_STEP = float(_LEVELS[1] - _LEVELS[0])


@dataclass(frozen=True)
class Cohort:
    """What one generation tells of a stage."""

    ranked: int
    """How many genomes the stage ranked."""
    finishers: tuple[int, ...]
    """Of those that completed the last stage, their places at the stage (0 is the best), the best
    at the end first."""


@dataclass(frozen=True)
class Belief:
    """What is held likely of a stage: a weight for each pair of shape and correlation."""

    weights: Floats

    def kept(self, share: float, doubt: float) -> float:
        """The chance that the best of a group is among the `share` that the stage ranks highest,
        at least, but for a probability of `doubt`."""
        chances = _relations().kept_at(share)
        return self._quantile(chances, doubt)

    @cached_property
    def agreement(self) -> float:
        """The expected rank correlation of the stage's order with the final one."""
        return float(self.weights @ _relations().agreement)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval in which that rank correlation lies with a probability of `level`."""
        tail = (1.0 - level) / 2.0
        values = _relations().agreement
        return self._quantile(values, tail), self._quantile(values, 1.0 - tail)

    def _quantile(self, values: Floats, share: float) -> float:
        order = np.argsort(values, kind="stable")
        below = np.cumsum(self.weights[order])
        return float(values[order][min(int(np.searchsorted(below, share)), len(values) - 1)])


@dataclass(frozen=True)
class _Relations:
    """All pairs of shape and correlation, in rows."""

    correlation: Floats
    curves: Floats
    """f at each of `_SCORES`, with mean 0 and variance 1: shape (pairs, cells)."""
    agreement: Floats
    kept: Floats
    """The chance that the best of a group is among the k cells of the highest scores: shape (pairs,
    cells + 1)."""

    def kept_at(self, share: float) -> Floats:
        place = min(max(share, 0.0), 1.0) * _CELLS
        low = min(int(place), _CELLS - 1)
        part = place - low
        result: Floats = (1.0 - part) * self.kept[:, low] + part * self.kept[:, low + 1]
        return result

    def means_at(self, scores: Floats) -> Floats:
        """r f(x) at other scores: shape (pairs, scores)."""
        curves = np.stack([np.interp(scores, _SCORES, curve) for curve in self.curves])
        result: Floats = self.correlation[:, None] * curves
        return result


@lru_cache(maxsize=1)
def _relations() -> _Relations:
    correlation = np.tile(CORRELATIONS, len(SHAPES))
    rows = []
    for shape in SHAPES:
        values = shape(_SCORES)
        rows += [(values - values.mean()) / values.std()] * len(CORRELATIONS)
    curves = np.array(rows)
    density = _normal(correlation[:, None] * curves, correlation)  # (pairs, cells, levels)
    marginal = density.mean(axis=1)
    below = np.cumsum(marginal, axis=1) * _STEP
    # The expected rank at the end, by cell: its correlation with the cell's is Spearman's.
    rank = (density * below[:, None, :]).sum(axis=2) * _STEP
    place = (np.arange(_CELLS) + 0.5) / _CELLS
    # Rounded, so that what is symmetric has no correlation at all; without the sign of its zero.
    agreement = np.round(12.0 * ((rank - 0.5) * (place - 0.5)).mean(axis=1), 9) + 0.0
    best = (density * (GROUP * below ** (GROUP - 1))[:, None, :]).sum(axis=2)
    best /= best.sum(axis=1, keepdims=True)
    kept = np.concatenate([np.zeros((len(best), 1)), np.cumsum(best[:, ::-1], axis=1)], axis=1)
    return _Relations(correlation, curves, agreement, kept)


def _normal(mean: Floats, correlation: Floats) -> Floats:
    """Densities of the final figure around `mean` (pairs, n), at each level: (pairs, n, levels)."""
    spread = np.sqrt(1.0 - correlation**2)[:, None, None]
    result: Floats = np.exp(-0.5 * ((_LEVELS - mean[:, :, None]) / spread) ** 2) / (
        spread * np.sqrt(2.0 * np.pi)
    )
    return result


def prior() -> Belief:
    """Before anything is known: rather reliable than not, all shapes equally likely."""
    weights = np.tile(1.0 + CORRELATIONS, len(SHAPES))
    return Belief(weights / weights.sum())


def updated(belief: Belief, cohorts: Sequence[Cohort], weight: float = 1.0) -> Belief:
    """The belief after further generations; each counts as `weight` of one of this run's."""
    logs = np.log(belief.weights)
    for cohort in cohorts:
        logs = logs + weight * _log_likelihood(cohort)
    weights = np.exp(logs - logs.max())
    return Belief(weights / weights.sum())


def best_held(cohorts: Sequence[Cohort]) -> tuple[int, int]:
    """Of the better half of each cohort's finishers at the end, how many stood in their better half
    at the stage; and how many these best are."""
    held = best = 0
    for cohort in cohorts:
        half = len(cohort.finishers) // 2
        better = sorted(cohort.finishers)[: (len(cohort.finishers) + 1) // 2]
        held += len(set(cohort.finishers[:half]).intersection(better))
        best += half
    return held, best


@lru_cache(maxsize=1024)
def _log_likelihood(cohort: Cohort) -> Floats:
    """The log of the probability that finishers of these places end in this order: for each pair.

    Exact for independent normal figures of equal spread: the density of the best so far being at a
    level, and the others below it in order, is carried from the worst to the best.
    """
    relations = _relations()
    if len(cohort.finishers) < 2:
        return np.zeros(len(relations.correlation))
    # Blom's scores of the places; a higher score is better.
    scores = np.array(
        [
            NormalDist().inv_cdf(1.0 - (place + 0.625) / (cohort.ranked + 0.25))
            for place in reversed(cohort.finishers)
        ]
    )
    densities = _normal(relations.means_at(scores), relations.correlation)
    total = np.zeros(len(relations.correlation))
    below = np.ones_like(densities[:, 0, :])
    for place in range(len(scores)):
        density = densities[:, place, :] * below
        cumulated = (np.cumsum(density, axis=1) - 0.5 * density) * _STEP
        mass = density.sum(axis=1, keepdims=True) * _STEP + 1e-300
        total += np.log(mass[:, 0])
        below = cumulated / mass
    return total
