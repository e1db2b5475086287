"""Figures of a classifier's rows by how often each row counts: of many resamples at once.

All are functions of weighted sums over rows; on counts of one they equal scikit-learn's figures,
which a test holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coralx.metrics.calibration import BINS, bin_gaps, scaled
from coralx.metrics.row_scores import Labels, Probabilities

Counts = NDArray[np.float64]
"""How often each resample drew each row, shape (resamples, rows)."""

Drawn = NDArray[np.float64]
"""A figure on every resample, shape (resamples,); NaN where it is undefined."""


def resampled(
    probabilities: Probabilities, labels: Labels, counts: Counts, temperature: float | None = None
) -> dict[str, Drawn]:
    """Every figure of a classifier that is read off its rows alone, by name."""
    rows, classes = probabilities.shape
    drawn = counts.sum(axis=1)
    called = probabilities.argmax(axis=1)
    own = probabilities[np.arange(rows), labels]
    loss = -np.log(np.clip(own, np.finfo(np.float64).eps, None))
    truth = np.eye(classes)[labels]
    distance = ((probabilities - truth) ** 2).sum(axis=1) / (2.0 if classes == 2 else 1.0)
    return {
        "auroc": counted_auroc(probabilities, labels, counts),
        "accuracy": counts @ (called == labels) / drawn,
        **_decisions(called, labels, counts, classes),
        "brier": counts @ distance / drawn,
        "calibration": _calibration(probabilities, labels, counts),
        "calibration_scaled": _calibration(scaled(probabilities, temperature), labels, counts)
        if temperature
        else np.full(len(counts), np.nan),
        "eval_loss": counts @ loss / drawn,
    }


def _calibration(probabilities: Probabilities, labels: Labels, counts: Counts) -> Drawn:
    bins, gaps = bin_gaps(probabilities, labels)
    by_bin = np.zeros((len(labels), BINS))
    by_bin[np.arange(len(labels)), bins] = gaps
    error: Drawn = np.abs(counts @ by_bin).sum(axis=1) / counts.sum(axis=1)
    return error


def _decisions(
    called: Labels, labels: Labels, counts: Counts, classes: int
) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1, of the positive class or averaged over all; 0 where nothing was
    called or is so. And the mean recall of all classes, undefined where one was not drawn."""
    precision, recall, f1, recalls = [], [], [], []
    for wanted in range(classes):
        hits = counts @ ((called == wanted) & (labels == wanted)).astype(np.float64)
        present = counts @ (labels == wanted).astype(np.float64)
        recalls.append(np.where(present > 0, hits / np.maximum(present, 1.0), np.nan))
    for wanted in [1] if classes == 2 else range(classes):
        hits = counts @ ((called == wanted) & (labels == wanted)).astype(np.float64)
        claimed = counts @ (called == wanted).astype(np.float64)
        present = counts @ (labels == wanted).astype(np.float64)
        precision.append(hits / np.maximum(claimed, 1.0))
        recall.append(hits / np.maximum(present, 1.0))
        f1.append(2.0 * hits / np.maximum(claimed + present, 1.0))
    return {
        "balanced_accuracy": np.mean(recalls, axis=0),
        "precision": np.mean(precision, axis=0),
        "recall": np.mean(recall, axis=0),
        "f1": np.mean(f1, axis=0),
    }


def counted_auroc(
    probabilities: Probabilities, labels: Labels, counts: Counts
) -> NDArray[np.float64]:
    """Of each resample, one against the rest with more than two classes."""
    classes = probabilities.shape[1]
    wanted = [1] if classes == 2 else range(classes)
    each = [_binary_auroc(probabilities[:, c], labels == c, counts) for c in wanted]
    mean: NDArray[np.float64] = np.mean(each, axis=0)
    return mean


def _binary_auroc(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], counts: Counts
) -> NDArray[np.float64]:
    """Share of (positive, negative) pairs in the right order, ties counting half (Mann-Whitney)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    positives = np.add.reduceat(counts[:, order] * positive[order], starts, axis=1)
    negatives = np.add.reduceat(counts[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2.0
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    right = (positives * below).sum(axis=1)
    share: NDArray[np.float64] = np.where(pairs > 0, right / np.maximum(pairs, 1.0), np.nan)
    return share
