"""What a stage loses by ranking with one signal or another.

`coralx.schedule.cohort_regret` has what cohorts and regret are. Arrays: a signal's values have
shape (configurations,), higher is better; `members` holds one cohort a row, shape (cohorts, size).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from coralx.schedule.cohort_regret import Floats, Members

Signal = Callable[[Members], Floats]
"""The signal's values of every cohort's members, shape (cohorts, size), higher is better."""


def fixed(values: Floats) -> Signal:
    """A signal that does not depend on who else is in the cohort."""
    return lambda members: values[members]


def rank_sum(*signals: Floats) -> Signal:
    """The sum of several signals' ranks within the cohort."""
    return lambda members: sum(
        (rankdata(values[members], axis=1) for values in signals), np.zeros(members.shape)
    )


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
