"""Every figure that is read off predictions: of one task, and of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coralx.config.metrics import OF_TASK
from coralx.objectives import language
from coralx.objectives.calibration import calibration, scaled
from coralx.objectives.false_positives import false_positive_cost, suspicion, threshold
from coralx.objectives.robustness import robustness
from coralx.objectives.safety import safety
from coralx.objectives.scores import Labels, Probabilities, RowScores, Said
from coralx.objectives.skill import auroc, brier, decisions, eval_loss
from coralx.objectives.task_skill import macro
from coralx.objectives.temperature import temperature

Figures = dict[str, float | None]

SETTLED = {"threshold": "threshold_at_recall_90", "temperature": "temperature"}
"""What is settled on validation, and under which name it stands beside the figures."""


def settled(rows: RowScores, by: RowScores) -> RowScores:
    """The rows with what is settled `by` the validation rows: threshold and temperature."""
    if by.labels is None or not by.is_finite:
        return rows
    return replace(
        rows,
        threshold=threshold(by.scores, by.labels),
        temperature=temperature(by.scores, by.labels),
    )


def figures(said: Said) -> Figures:
    """All figures of a run, by name; None where one is undefined or a score is not finite."""
    own = {task: task_figures(rows) for task, rows in said.items()}
    values = macro(
        {
            task: {n: np.array(np.nan if v is None else v) for n, v in found.items()}
            for task, found in own.items()
        }
    )
    settled = {
        name + (f"{OF_TASK}{task}" if task else ""): value
        for task, rows in said.items()
        for field, name in SETTLED.items()
        if (value := getattr(rows, field)) is not None
    }
    return {**{n: float(v) if np.isfinite(v) else None for n, v in values.items()}, **settled}


def task_figures(rows: RowScores) -> Figures:
    """All figures of one task."""
    found: Figures = {}
    if rows.labels is None:
        found = language.figures(rows.scores)
    else:
        found = _classifier_figures(rows, rows.scores, rows.labels)
    if rows.withstood is not None:
        found["safety"] = safety(rows.withstood)
    return found if rows.is_finite else dict.fromkeys(found)


def _classifier_figures(rows: RowScores, probabilities: Probabilities, labels: Labels) -> Figures:
    names = ("auroc", "accuracy", "balanced_accuracy", "f1", "precision", "recall", "brier")
    more = ("calibration", "calibration_scaled", "eval_loss", "false_positive_cost")
    optional = ("robustness",) if rows.groups is not None else ()
    if not rows.is_finite:
        return dict.fromkeys((*names, *more, *optional))
    heat = rows.temperature
    found = {
        "auroc": auroc(probabilities, labels),
        **decisions(probabilities, labels),
        "brier": brier(probabilities, labels),
        "calibration": calibration(probabilities, labels),
        "calibration_scaled": calibration(scaled(probabilities, heat), labels) if heat else None,
        "eval_loss": eval_loss(probabilities, labels),
        "false_positive_cost": false_positive_cost(clean_rows(rows), rows.threshold),
    }
    if rows.groups is not None:
        found["robustness"] = robustness(probabilities, labels, rows.groups)
    return found


def clean_rows(rows: RowScores) -> NDArray[np.float64]:
    """How suspicious the clean rows look: the hold-out's, or without one the negative ones."""
    if rows.clean is not None:
        return rows.clean
    negative: NDArray[np.float64] = suspicion(rows.scores)[rows.labels == 0]
    return negative
