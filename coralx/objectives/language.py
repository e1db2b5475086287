"""How well a language model predicts completions.

Scores have one row an example, shape (rows, 2): the completion's negative log-likelihood in nats,
and its number of tokens.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LanguageScores = NDArray[np.float64]


def figures(scores: LanguageScores) -> dict[str, float | None]:
    """`eval_loss`, the mean over all completion tokens in nats, 0 upward; `perplexity`, its
    exponential, 1 upward. Both are to be minimised; None where a likelihood is not finite."""
    if not np.isfinite(scores).all():
        return {"eval_loss": None, "perplexity": None}
    loss = float(scores[:, 0].sum() / scores[:, 1].sum())
    return {"eval_loss": loss, "perplexity": _exponential(loss)}


def _exponential(loss: float) -> float | None:
    """None where it is beyond any float."""
    return math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else None
