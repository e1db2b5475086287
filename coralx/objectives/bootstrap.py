"""Bootstrap confidence intervals of every figure that is read off predictions.

A resample is a row of counts: how often each example was drawn. All figures are functions of
weighted sums over examples, so a thousand resamples are a few matrix products; on counts of one
they equal scikit-learn's figures, which a test holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from coralx.objectives import language
from coralx.objectives.calibration import BINS, bin_gaps
from coralx.objectives.predictions import NAMES, figures
from coralx.objectives.skill import Labels, Probabilities
from coralx.records import Interval
from coralx.rng import generator

Counts = NDArray[np.float64]
"""How often each resample drew each row, shape (resamples, rows)."""

RESAMPLES = 1000
CHUNK = 1 << 22
"""Counts held at once."""


def intervals(
    probabilities: Probabilities, labels: Labels, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """All figures with 95 % percentile intervals (Efron and Tibshirani 1993, section 13.3).

    Rows are drawn with replacement; draws in which a figure is undefined do not count for it.
    """
    values = figures(probabilities, labels)
    if values["eval_loss"] is None:
        return {name: Interval(None, None, None) for name in NAMES}
    return _intervals(
        values,
        lambda counts: resampled(probabilities, labels, counts),
        len(labels),
        seed,
        resamples,
    )


def language_intervals(
    scores: language.LanguageScores, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """A language model's figures with 95 % percentile intervals; whole examples are drawn."""
    values = language.figures(scores)
    if values["eval_loss"] is None:
        return {name: Interval(None, None, None) for name in values}

    def figures_of(counts: Counts) -> dict[str, NDArray[np.float64]]:
        loss = (counts @ scores[:, 0]) / (counts @ scores[:, 1])
        with np.errstate(over="ignore"):
            return {"eval_loss": loss, "perplexity": np.exp(loss)}

    return _intervals(values, figures_of, len(scores), seed, resamples)


def _intervals(
    values: Mapping[str, float | None],
    figures_of: Callable[[Counts], Mapping[str, NDArray[np.float64]]],
    rows: int,
    seed: int,
    resamples: int,
) -> dict[str, Interval]:
    """Draw resamples in chunks and take each figure's percentiles."""
    rng = generator(seed, "bootstrap")
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in values}
    left = resamples
    while left:
        size = min(left, max(1, CHUNK // rows))
        counts = rng.multinomial(rows, np.full(rows, 1.0 / rows), size=size).astype(np.float64)
        for name, column in figures_of(counts).items():
            drawn[name].append(column)
        left -= size
    return {name: _interval(values[name], np.concatenate(drawn[name])) for name in values}


def _interval(value: float | None, drawn: NDArray[np.float64]) -> Interval:
    defined = drawn[np.isfinite(drawn)]
    if value is None or not len(defined):
        return Interval(value, None, None)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def resampled(
    probabilities: Probabilities, labels: Labels, counts: Counts
) -> dict[str, NDArray[np.float64]]:
    """Every figure on every resample, shape (resamples,); NaN where it is undefined."""
    rows, classes = probabilities.shape
    drawn = counts.sum(axis=1)
    called = probabilities.argmax(axis=1)
    own = probabilities[np.arange(rows), labels]
    loss = -np.log(np.clip(own, np.finfo(np.float64).eps, None))
    bins, gaps = bin_gaps(probabilities, labels)
    by_bin = np.zeros((rows, BINS))
    by_bin[np.arange(rows), bins] = gaps
    return {
        "auroc": _auroc(probabilities, labels, counts),
        "accuracy": counts @ (called == labels) / drawn,
        **_decisions(called, labels, counts, [1] if classes == 2 else range(classes)),
        "calibration": np.abs(counts @ by_bin).sum(axis=1) / drawn,
        "eval_loss": counts @ loss / drawn,
    }


def _decisions(
    called: Labels, labels: Labels, counts: Counts, classes: list[int] | range
) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1, averaged over `classes`; 0 where nothing was called or is so."""
    precision, recall, f1 = [], [], []
    for wanted in classes:
        hits = counts @ ((called == wanted) & (labels == wanted)).astype(np.float64)
        claimed = counts @ (called == wanted).astype(np.float64)
        present = counts @ (labels == wanted).astype(np.float64)
        precision.append(hits / np.maximum(claimed, 1.0))
        recall.append(hits / np.maximum(present, 1.0))
        f1.append(2.0 * hits / np.maximum(claimed + present, 1.0))
    return {
        "precision": np.mean(precision, axis=0),
        "recall": np.mean(recall, axis=0),
        "f1": np.mean(f1, axis=0),
    }


def _auroc(probabilities: Probabilities, labels: Labels, counts: Counts) -> NDArray[np.float64]:
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
