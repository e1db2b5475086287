"""How well a language model predicts completions."""

from __future__ import annotations

import math

import numpy as np

from coralx.metrics.row_scores import LanguageScores, ScoresByTask


def figures(scores: LanguageScores) -> dict[str, float | None]:
    """`eval_loss`, the mean over all completion tokens in nats, 0 upward; `perplexity`, its
    exponential, 1 upward. Both are to be minimised; None where a likelihood is not finite."""
    if not np.isfinite(scores).all():
        return {"eval_loss": None, "perplexity": None}
    loss = float(scores[:, 0].sum() / scores[:, 1].sum())
    return {"eval_loss": loss, "perplexity": _exponential(loss)}


def of_all_tasks(scores: ScoresByTask) -> dict[str, float | None]:
    """`perplexity` of a run of several tasks: the exponential of the loss over the completion
    tokens of all of them together, so that each token counts alike. Nothing for classifiers."""
    if len(scores) < 2 or any(rows.labels is not None for rows in scores.values()):
        return {}
    all_rows = np.concatenate([rows.scores for rows in scores.values()])
    return {"perplexity": figures(all_rows)["perplexity"]}


def _exponential(loss: float) -> float | None:
    """None where it exceeds the greatest float."""
    return math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else None
