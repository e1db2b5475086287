"""Which groups of rows are large enough to be judged by themselves."""

from __future__ import annotations

import numpy as np

from coralx.objectives.scores import Labels

LEAST_ROWS = 20
"""Of each class, in a group that counts: the AUROC of chance then has a standard error of 0.09."""


def judged_groups(labels: Labels, groups: Labels, classes: int) -> list[int]:
    """The groups with enough rows of every class; `groups` tells each row's, shape (rows,)."""
    return [
        int(group)
        for group in np.unique(groups)
        if np.bincount(labels[groups == group], minlength=classes).min() >= LEAST_ROWS
    ]
