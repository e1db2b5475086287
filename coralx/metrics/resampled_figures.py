"""A classifier's figures on many resamples at once, by how often each drew each row.

All are functions of weighted sums over rows. Where each row counts once they equal scikit-learn's
figures, which a test checks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coralx.metrics.calibration import BINS, bin_gaps, scaled
from coralx.metrics.row_scores import Labels, Probabilities

Counts = NDArray[np.float64]
"""How often each resample drew each row, shape (resamples, rows)."""

Resampled = NDArray[np.float64]
"""A figure on every resample, shape (resamples,); NaN where it is undefined."""


def resampled(
    probabilities: Probabilities, labels: Labels, counts: Counts, temperature: float | None = None
) -> dict[str, Resampled]:
    """Every figure of a classifier that is read off its rows alone, by name."""
    rows, classes = probabilities.shape
    total = counts.sum(axis=1)
    predicted = probabilities.argmax(axis=1)
    of_truth = probabilities[np.arange(rows), labels]
    loss = -np.log(np.clip(of_truth, np.finfo(np.float64).eps, None))
    truth = np.eye(classes)[labels]
    # With two classes both columns are off by the same: the Brier score counts one of them.
    distance = ((probabilities - truth) ** 2).sum(axis=1) / (2.0 if classes == 2 else 1.0)
    calibration_scaled = np.full(len(counts), np.nan)
    if temperature:
        calibration_scaled = _calibration(scaled(probabilities, temperature), labels, counts)
    return {
        "auroc": counted_auroc(probabilities, labels, counts),
        "accuracy": counts @ (predicted == labels) / total,
        **_decisions(predicted, labels, counts, classes),
        "brier": counts @ distance / total,
        "calibration": _calibration(probabilities, labels, counts),
        "calibration_scaled": calibration_scaled,
        "eval_loss": counts @ loss / total,
    }


def _calibration(probabilities: Probabilities, labels: Labels, counts: Counts) -> Resampled:
    bins, gaps = bin_gaps(probabilities, labels)
    by_bin = np.zeros((len(labels), BINS))
    by_bin[np.arange(len(labels)), bins] = gaps
    error: Resampled = np.abs(counts @ by_bin).sum(axis=1) / counts.sum(axis=1)
    return error


def _decisions(
    predicted: Labels, labels: Labels, counts: Counts, classes: int
) -> dict[str, Resampled]:
    """Precision, recall and F1, of the positive class or averaged over all; 0 where no row is
    predicted positive, or none is. And the mean recall of all classes, undefined where one was not
    drawn."""
    precision, recall, f1, defined_recall = [], [], [], []
    for number in range(classes):
        of_class = labels == number
        hits = counts @ ((predicted == number) & of_class).astype(np.float64)
        claimed = counts @ (predicted == number).astype(np.float64)
        present = counts @ of_class.astype(np.float64)
        defined_recall.append(np.where(present > 0, hits / np.maximum(present, 1.0), np.nan))
        if classes == 2 and number == 0:  # of two classes, only the positive one has figures
            continue
        precision.append(hits / np.maximum(claimed, 1.0))
        recall.append(hits / np.maximum(present, 1.0))
        f1.append(2.0 * hits / np.maximum(claimed + present, 1.0))
    return {
        "balanced_accuracy": np.mean(defined_recall, axis=0),
        "precision": np.mean(precision, axis=0),
        "recall": np.mean(recall, axis=0),
        "f1": np.mean(f1, axis=0),
    }


def counted_auroc(
    probabilities: Probabilities, labels: Labels, counts: Counts
) -> NDArray[np.float64]:
    """Of each resample, one against the rest with more than two classes."""
    classes = probabilities.shape[1]
    scored = [1] if classes == 2 else range(classes)
    aurocs = [_binary_auroc(probabilities[:, c], labels == c, counts) for c in scored]
    mean: NDArray[np.float64] = np.mean(aurocs, axis=0)
    return mean


def _binary_auroc(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], counts: Counts
) -> NDArray[np.float64]:
    """Share of (positive, negative) pairs in the right order, ties counting half (Mann-Whitney)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # one column a distinct score
    positives = np.add.reduceat(counts[:, order] * positive[order], starts, axis=1)
    negatives = np.add.reduceat(counts[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2.0
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    right = (positives * below).sum(axis=1)
    share: NDArray[np.float64] = np.where(pairs > 0, right / np.maximum(pairs, 1.0), np.nan)
    return share
