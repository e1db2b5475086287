"""What the training steps themselves say: figures of losses and gradient norms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student_t

from coralx.results import Trend


def loss_trend(losses: Sequence[float], confidence: float = 0.95) -> Trend | None:
    """Least-squares slope of the loss per step with its interval (Student's t).

    None with fewer than three steps.
    """
    if len(losses) < 3:
        return None
    fit = linregress(np.arange(len(losses)), losses)
    half = float(student_t.ppf((1 + confidence) / 2, len(losses) - 2) * fit.stderr)
    return Trend(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


def typical_gradient_norm(norms: Sequence[float]) -> float | None:
    """90th percentile of the norms before clipping; None without a step."""
    return float(np.percentile(norms, 90)) if norms else None
