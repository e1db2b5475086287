"""What a stage loses by its cuts: the mean regret over cohorts, and how sure it is.

A cohort is a set of configurations that enter a stage together. The stage keeps those that a
figure ranks first. Its regret is the best full result of the cohort less the best full result of
those kept: 0 where the best one was kept, never negative.

Arrays: figures and full results are higher where they are better; `members` holds one cohort a
row, shape (cohorts, size), as configuration numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

Floats = NDArray[np.float64]
Members = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def all_cohorts(configurations: int, size: int) -> Members:
    """Every set of `size` out of so many configurations, none drawn twice and none left out."""
    return np.asarray(list(combinations(range(configurations), size)), dtype=np.int64)


def drawn_cohorts(
    configurations: Members, size: int, count: int, draws: np.random.Generator
) -> Members:
    """`count` sets of `size` out of the configurations with these numbers, drawn independently, so
    that a set may come twice."""
    keys = draws.random((count, len(configurations)))
    members: Members = configurations[np.argsort(keys, axis=1)[:, :size]]
    return members


def best_first(values: Floats) -> Members:
    """Places along the last axis, the highest value first. Ties stay in the members' order, as a
    stage breaks them by genome id. NaN ranks last."""
    ranked = np.where(np.isnan(values), -np.inf, values)
    order: Members = np.argsort(-ranked, axis=-1, kind="stable")
    return order


def regrets(values: Floats, truth: Floats, members: Members, keep: int) -> Floats:
    """The regret of each cohort, shape (cohorts,), where the `keep` highest `values` go on.

    `values` has the shape of `members`.
    """
    full = truth[members]
    kept = np.take_along_axis(full, best_first(values)[:, :keep], axis=1)
    lost: Floats = full.max(axis=1) - kept.max(axis=1)
    return lost


def estimate(values: Floats, members: Members, configurations: int) -> Estimate:
    """The mean of one value a cohort, over *all* cohorts or many drawn ones, with the delete-one
    jackknife's interval for other configurations from the same space (Arvesen 1969): cohorts share
    configurations, so their own spread says nothing about it."""
    held = np.zeros((len(members), configurations), dtype=bool)
    np.put_along_axis(held, members, True, axis=1)
    totals = values.sum() - values @ held
    without = totals / (len(members) - held.sum(axis=0))
    mean = float(values.mean())
    spread = (configurations - 1) / configurations * ((without - without.mean()) ** 2).sum()
    reach = float(t.ppf(0.975, configurations - 1) * np.sqrt(spread))
    return Estimate(mean, mean - reach, mean + reach)
