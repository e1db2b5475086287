"""Every figure that is read off predictions, and its bootstrap confidence interval."""

from __future__ import annotations

import numpy as np
import sklearn

from coralx.objectives.calibration import calibration
from coralx.objectives.skill import Labels, Probabilities, auroc, decisions, eval_loss
from coralx.records import Interval
from coralx.rng import generator

NAMES = ("auroc", "accuracy", "f1", "precision", "recall", "calibration", "eval_loss")

RESAMPLES = 1000


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


def intervals(
    probabilities: Probabilities, labels: Labels, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """All figures with 95 % percentile intervals (Efron and Tibshirani 1993, section 13.3).

    Rows are drawn with replacement; draws in which a figure is undefined do not count for it.
    """
    values = figures(probabilities, labels)
    rng = generator(seed, "bootstrap")
    drawn: dict[str, list[float]] = {name: [] for name in NAMES}
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for _ in range(resamples if None not in values.values() else 0):
            rows = rng.integers(len(labels), size=len(labels))
            for name, value in figures(probabilities[rows], labels[rows]).items():
                if value is not None:
                    drawn[name].append(value)
    return {name: _interval(value, drawn[name]) for name, value in values.items()}


def _interval(value: float | None, drawn: list[float]) -> Interval:
    if value is None or not drawn:
        return Interval(value, None, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))
