"""`robustness`: the AUROC of the group for which it is lowest, 0 to 1, to be maximised."""

from __future__ import annotations

import numpy as np

from coralx.metrics.classification import auroc
from coralx.metrics.row_scores import Labels, Probabilities

LEAST_ROWS = 20
"""Rows of each class that a group needs to count: the AUROC of a model that guesses then has a
standard error of 0.09."""


def robustness(probabilities: Probabilities, labels: Labels, groups: Labels) -> float | None:
    """The lowest AUROC among the groups that count; None if there is none. `groups` holds each
    row's group by number, shape (rows,)."""
    aurocs = [
        auroc(probabilities[groups == group], labels[groups == group])
        for group in judged_groups(labels, groups, probabilities.shape[1])
    ]
    return min((value for value in aurocs if value is not None), default=None)


def judged_groups(labels: Labels, groups: Labels, classes: int) -> list[int]:
    """The groups with enough rows of every class; `groups` holds each row's, shape (rows,)."""
    return [
        int(group)
        for group in np.unique(groups)
        if np.bincount(labels[groups == group], minlength=classes).min() >= LEAST_ROWS
    ]
