"""`robustness`: the AUROC of the group for which it is lowest, 0 to 1, to be maximised."""

from __future__ import annotations

import numpy as np

from coralx.metrics.classification import auroc
from coralx.metrics.row_scores import Labels, Probabilities


def robustness(probabilities: Probabilities, labels: Labels, groups: Labels) -> float | None:
    """The lowest of the groups' figures; `groups` tells each row's group, shape (rows,)."""
    classes = probabilities.shape[1]
    found = [
        auroc(probabilities[groups == group], labels[groups == group])
        for group in judged_groups(labels, groups, classes)
    ]
    return min((figure for figure in found if figure is not None), default=None)


LEAST_ROWS = 20
"""Of each class, in a group that counts: the AUROC of chance then has a standard error of 0.09."""


def judged_groups(labels: Labels, groups: Labels, classes: int) -> list[int]:
    """The groups with enough rows of every class; `groups` tells each row's, shape (rows,)."""
    return [
        int(group)
        for group in np.unique(groups)
        if np.bincount(labels[groups == group], minlength=classes).min() >= LEAST_ROWS
    ]
