"""Every figure that is read off predictions."""

from __future__ import annotations

import numpy as np

from coralx.objectives.calibration import calibration
from coralx.objectives.scores import Labels, Probabilities
from coralx.objectives.skill import auroc, decisions, eval_loss

NAMES = ("auroc", "accuracy", "f1", "precision", "recall", "calibration", "eval_loss")


def figures(probabilities: Probabilities, labels: Labels) -> dict[str, float | None]:
    """All figures, by name; None where one is undefined or a probability is not finite."""
    if not np.isfinite(probabilities).all():
        return dict.fromkeys(NAMES)
    return {
        "auroc": auroc(probabilities, labels),
        **decisions(probabilities, labels),
        "calibration": calibration(probabilities, labels),
        "eval_loss": eval_loss(probabilities, labels),
    }
