"""`robustness`: the AUROC of the group for which it is lowest, 0 to 1, to be maximised.

Worst-group performance (Sagawa et al. 2020, section 2.2), by AUROC in place of accuracy. A group of
few rows has an AUROC of chance, so that only groups with at least ten rows of every class count.
Undefined where there is no such group.
"""

from __future__ import annotations

import numpy as np

from coralx.objectives.scores import Labels, Probabilities
from coralx.objectives.skill import auroc

LEAST_ROWS = 10
"""Of each class, in a group that counts."""


def robustness(probabilities: Probabilities, labels: Labels, groups: Labels) -> float | None:
    """The lowest of the groups' figures; `groups` tells each row's group, shape (rows,)."""
    classes = probabilities.shape[1]
    found = [
        auroc(probabilities[groups == group], labels[groups == group])
        for group in judged_groups(labels, groups, classes)
    ]
    return min((figure for figure in found if figure is not None), default=None)


def judged_groups(labels: Labels, groups: Labels, classes: int) -> list[int]:
    """Groups with enough rows of every class."""
    return [
        int(group)
        for group in np.unique(groups)
        if np.bincount(labels[groups == group], minlength=classes).min() >= LEAST_ROWS
    ]
