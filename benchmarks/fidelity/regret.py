"""What a stage loses by its cuts: the mean regret over all cohorts, and how sure it is.

A cohort is a set of configurations that enter a stage together. The stage keeps those that a
signal ranks first. Its regret is the best full result of the cohort less the best full result of
those kept: 0 where the best one was kept, never negative.

Arrays: `signal` and `truth` have shape (configurations,), higher is better; `members` holds one
cohort a row, shape (cohorts, size), as configuration numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, t

Floats = NDArray[np.float64]
Members = NDArray[np.int64]
Signal = Callable[[Members], Floats]
"""The signal's values of every cohort's members, shape (cohorts, size), higher is better."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def all_cohorts(configurations: int, size: int) -> Members:
    """Every set of `size` out of so many configurations, none drawn twice and none left out."""
    return np.asarray(list(combinations(range(configurations), size)), dtype=np.int64)


def fixed(values: Floats) -> Signal:
    """A signal that does not depend on who else is in the cohort."""
    return lambda members: values[members]


def rank_sum(*signals: Floats) -> Signal:
    """The sum of several signals' ranks within the cohort."""
    return lambda members: sum(
        (rankdata(values[members], axis=1) for values in signals), np.zeros(members.shape)
    )


def regrets(values: Floats, truth: Floats, members: Members, keep: int) -> Floats:
    """The regret of each cohort, shape (cohorts,), where the `keep` highest `values` go on.

    `values` has the shape of `members`. Ties are kept in the members' order, as a stage breaks
    them by genome id. NaN ranks last.
    """
    ranked = np.where(np.isnan(values), -np.inf, values)
    best_first = np.argsort(-ranked, axis=1, kind="stable")[:, :keep]
    full = truth[members]
    kept = np.take_along_axis(full, best_first, axis=1)
    lost: Floats = full.max(axis=1) - kept.max(axis=1)
    return lost


def random_regret(truth: Floats, members: Members, keep: int) -> Floats:
    """The regret to be expected of each cohort where survivors are drawn by lot."""
    full = np.sort(truth[members], axis=1)[:, ::-1]
    size = members.shape[1]
    expected = np.zeros(len(members))
    missed = 1.0
    for place in range(size - keep + 1):  # the best of those kept is the cohort's place-th best
        chance = missed * keep / (size - place)
        expected += chance * (full[:, 0] - full[:, place])
        missed *= 1 - keep / (size - place)
    return expected


def estimate(values: Floats, members: Members, configurations: int) -> Estimate:
    """The mean of one value a cohort, over *all* cohorts, with the delete-one jackknife's interval
    for other configurations from the same space (Arvesen 1969): cohorts share configurations, so
    their own spread says nothing about it."""
    held = np.zeros((len(members), configurations), dtype=bool)
    np.put_along_axis(held, members, True, axis=1)
    totals = values.sum() - values @ held
    without = totals / (len(members) - held.sum(axis=0))
    mean = float(values.mean())
    spread = (configurations - 1) / configurations * ((without - without.mean()) ** 2).sum()
    reach = float(t.ppf(0.975, configurations - 1) * np.sqrt(spread))
    return Estimate(mean, mean - reach, mean + reach)
