"""Standard errors: how far figures of the validation split may be off, its rows being a sample.

They are recorded with every scoring, so that a choice among candidates can tell a difference from
noise long after the predictions are gone (`report.choice`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from coralx.config.metric_catalogue import standard_error_name
from coralx.metrics.intervals import closed_form_intervals
from coralx.metrics.language_model import figures as language_figures
from coralx.metrics.proportion_intervals import LEVEL
from coralx.metrics.row_scores import LanguageScores, RowScores, ScoresByTask

Z = float(norm.ppf((1.0 + LEVEL) / 2.0))
"""Standard errors from a figure to either end of its interval."""


def standard_errors(scores: ScoresByTask) -> dict[str, float]:
    """Standard errors by the names that `standard_error_name` gives; figures without a closed form
    have none. A run's figure is a mean over its tasks, which are independent."""
    by_task = {task: _of_task(rows) for task, rows in scores.items()}
    named = {
        standard_error_name(f"{name}@{task}"): error
        for task, errors in by_task.items()
        if task
        for name, error in errors.items()
    }
    first, *others = by_task.values()
    shared = [name for name in first if all(name in errors for errors in others)]
    run = {
        name: math.hypot(*(errors[name] for errors in by_task.values())) / len(by_task)
        for name in shared
    }
    if "auroc" in run:
        run["task_skill"] = run["auroc"]
    run |= _of_all_examples(scores)
    return {**{standard_error_name(name): error for name, error in run.items()}, **named}


def _of_task(rows: RowScores) -> dict[str, float]:
    """Half of a 95 % interval in standard errors, which is a little more than the variance's root
    where that would be too small; of a mean loss the standard error of a mean."""
    if not rows.is_finite:
        return {}
    if rows.labels is None:
        return _of_language(rows.scores)
    errors = {
        name: (interval.high - interval.low) / (2.0 * Z)
        for name, interval in closed_form_intervals(rows).items()
        if interval.low is not None and interval.high is not None
    }
    of_truth = rows.scores[np.arange(len(rows.labels)), rows.labels]
    losses = -np.log(np.clip(of_truth, np.finfo(np.float64).eps, None))
    return {**errors, **({"eval_loss": _of_mean(losses)} if len(losses) > 1 else {})}


def _of_mean(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _of_language(scores: LanguageScores) -> dict[str, float]:
    """Of the loss over all completion tokens, a ratio of two sums over examples (Cochran 1977,
    equation 6.13); and of perplexity, its exponential, by the delta method."""
    own = language_figures(scores)
    loss, perplexity = own["eval_loss"], own["perplexity"]
    if loss is None or len(scores) < 2:
        return {}
    error = _of_mean((scores[:, 0] - loss * scores[:, 1]) / scores[:, 1].mean())
    return {
        "eval_loss": error,
        **({} if perplexity is None else {"perplexity": perplexity * error}),
    }


def _of_all_examples(scores: ScoresByTask) -> dict[str, float]:
    """Of the perplexity of several language tasks, which is that of all their examples together."""
    if len(scores) < 2 or any(rows.labels is not None for rows in scores.values()):
        return {}
    together = _of_language(np.concatenate([rows.scores for rows in scores.values()]))
    return {name: error for name, error in together.items() if name == "perplexity"}
