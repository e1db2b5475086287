"""`robustness`: the AUROC of the group for which it is lowest, 0 to 1, to be maximised.

Worst-group performance (Sagawa et al. 2020, section 2.2), by AUROC in place of accuracy. A group of
few rows has an AUROC by chance, so only groups with at least twenty rows of every class count.
Undefined where there is no such group.
"""

from __future__ import annotations

from coralx.objectives.groups import judged_groups
from coralx.objectives.scores import Labels, Probabilities
from coralx.objectives.skill import auroc


def robustness(probabilities: Probabilities, labels: Labels, groups: Labels) -> float | None:
    """The lowest of the groups' figures; `groups` tells each row's group, shape (rows,)."""
    classes = probabilities.shape[1]
    found = [
        auroc(probabilities[groups == group], labels[groups == group])
        for group in judged_groups(labels, groups, classes)
    ]
    return min((figure for figure in found if figure is not None), default=None)
