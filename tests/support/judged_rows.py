"""Rows of a classifier with attacks, clean hold-outs and groups."""

from __future__ import annotations

import numpy as np

from coralx.metrics.compute import fitted_on_validation
from coralx.metrics.row_scores import RowScores

ROWS = 60


def two_classes(positive: list[float]) -> np.ndarray:
    """Probabilities of two classes, from those of the second."""
    return np.column_stack([1 - np.array(positive), positive])


def judged(
    seed: int, classes: int = 2, rows: int = ROWS, *, clean: bool = True, attacks: bool = True
) -> RowScores:
    """What some model said about a task's rows, in two groups, and about all else."""
    rng = np.random.default_rng([seed, classes])
    labels = np.arange(rows) % classes
    raw = rng.random((rows, classes)).round(1) + 0.1  # rounded, so that ties occur
    raw[np.arange(rows), labels] += 0.3
    found = RowScores(
        raw / raw.sum(axis=1, keepdims=True),
        labels,
        groups=rng.integers(2, size=rows),
        withstood=rng.integers(2, size=17).astype(np.float64) if attacks else None,
        attacked=rng.random(17).round(1) if attacks else None,
        sources=np.arange(17) // 3 if attacks else None,
        clean=rng.random(23).round(1) if clean else None,
        clean_flagged=rng.integers(2, size=23).astype(np.float64) if clean else None,
    )
    return fitted_on_validation(found, found)
