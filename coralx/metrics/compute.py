"""Every figure that is read off predictions: of one task, and of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coralx.config.metric_catalogue import OF_TASK
from coralx.metrics import language_model as language
from coralx.metrics.calibration import calibration, scaled, temperature
from coralx.metrics.classification import auroc, brier, decisions, eval_loss
from coralx.metrics.false_positive_cost import positives, rate, suspicion, threshold
from coralx.metrics.robustness import robustness
from coralx.metrics.row_scores import Labels, Probabilities, RowScores, Said
from coralx.metrics.safety import flagged, safety, withstood
from coralx.metrics.task_skill import macro

Figures = dict[str, float | None]

SETTLED = {"threshold": "threshold_at_recall_90", "temperature": "temperature"}
"""What is settled on validation, and under which name it stands beside the figures."""


def settled(rows: RowScores, by: RowScores) -> RowScores:
    """The rows with what is settled `by` the validation rows: threshold and temperature."""
    if by.labels is None or not by.is_finite:
        return rows
    known = positives(by.scores, by.labels)
    return replace(
        rows,
        threshold=threshold(known),
        temperature=temperature(by.scores, by.labels),
        positives=known,
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
    values |= {
        n: np.array(np.nan if v is None else v) for n, v in language.of_all_tasks(said).items()
    }
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
    failed = withstood(rows)
    if failed is not None and rows.withstood is not None:
        share = safety(failed)
        found["safety"] = share if np.isfinite(share) else None
        if rows.attacked is not None:
            found["safety_argmax"] = safety(rows.withstood)
    return found if rows.is_finite else dict.fromkeys(found)


def _classifier_figures(rows: RowScores, probabilities: Probabilities, labels: Labels) -> Figures:
    names = ("auroc", "accuracy", "balanced_accuracy", "f1", "precision", "recall", "brier")
    more = ("calibration", "calibration_scaled", "eval_loss", "false_positive_cost")
    last = ("false_positive_rate_argmax", "recall_at_threshold")
    optional = ("robustness",) if rows.groups is not None else ()
    if not rows.is_finite:
        return dict.fromkeys((*names, *more, *last, *optional))
    heat = rows.temperature
    found = {
        "auroc": auroc(probabilities, labels),
        **decisions(probabilities, labels),
        "brier": brier(probabilities, labels),
        "calibration": calibration(probabilities, labels),
        "calibration_scaled": calibration(scaled(probabilities, heat), labels) if heat else None,
        "eval_loss": eval_loss(probabilities, labels),
        "false_positive_cost": rate(clean_rows(rows), rows.threshold),
        "false_positive_rate_argmax": _mean(clean_flagged(rows)),
        "recall_at_threshold": rate(positives(probabilities, labels), rows.threshold),
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


def clean_flagged(rows: RowScores) -> NDArray[np.float64]:
    """1 for each clean row whose most probable class is any but the first, shape (clean rows,);
    empty where an earlier version did not keep it."""
    if rows.clean is None:
        negative: NDArray[np.float64] = flagged(rows.scores)[rows.labels == 0]
        return negative
    return np.zeros(0) if rows.clean_flagged is None else rows.clean_flagged


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
