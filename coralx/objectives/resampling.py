"""Figures on resampled rows, a thousand resamples in a few matrix products.

A resample is a row of counts: how often each example was drawn. All figures are functions of
weighted sums over examples; on counts of one they equal scikit-learn's figures, which a test holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from coralx.objectives.calibration import BINS, bin_gaps
from coralx.objectives.scores import Labels, LanguageScores, Probabilities, RowScores
from coralx.rng import generator

Counts = NDArray[np.float64]
"""How often each resample drew each row, shape (resamples, rows)."""

RESAMPLES = 1000
CHUNK = 1 << 22
"""Counts held at once."""

Drawn = NDArray[np.float64]
"""A figure on every resample, shape (resamples,); NaN where it is undefined."""

Name = TypeVar("Name")


def drawn_figures(
    models: Mapping[Name, RowScores], seed: int, resamples: int = RESAMPLES
) -> dict[Name, dict[str, Drawn]]:
    """Every model's figures by name, all on the same resamples, so that they can be compared draw
    by draw; those of a model are the same in whatever company.

    Raises ValueError for models that scored different rows.
    """
    if not models:
        return {}
    first = next(iter(models.values()))
    if not all(_score_the_same_rows(first, scores) for scores in models.values()):
        raise ValueError("models that scored different rows cannot be compared draw by draw")
    chunks: dict[Name, list[dict[str, Drawn]]] = {name: [] for name in models}
    for counts in _draws(len(first.scores), seed, resamples):
        for name, scores in models.items():
            chunks[name].append(_figures(scores, counts))
    return {
        name: {figure: np.concatenate([part[figure] for part in parts]) for figure in parts[0]}
        for name, parts in chunks.items()
    }


def percentile_interval(drawn: Drawn) -> tuple[float, float] | None:
    """The 95 % percentile interval (Efron and Tibshirani 1993, section 13.3) of a figure, or of a
    difference of two. Draws in which it is undefined do not count; None where no other is left."""
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _score_the_same_rows(first: RowScores, second: RowScores) -> bool:
    if first.labels is None or second.labels is None:
        return first.labels is second.labels and len(first.scores) == len(second.scores)
    return np.array_equal(first.labels, second.labels)


def _draws(rows: int, seed: int, resamples: int) -> Iterator[Counts]:
    """Resamples of `rows` rows with replacement, in chunks that keep memory small."""
    rng = generator(seed, "bootstrap")
    left = resamples
    while left:
        size = min(left, max(1, CHUNK // rows))
        counts = rng.multinomial(rows, np.full(rows, 1.0 / rows), size=size)
        yield counts.astype(np.float64)
        left -= size


def _figures(scores: RowScores, counts: Counts) -> dict[str, Drawn]:
    if scores.labels is None:
        return _language_figures(scores.scores, counts)
    return resampled(scores.scores, scores.labels, counts)


def _language_figures(scores: LanguageScores, counts: Counts) -> dict[str, Drawn]:
    loss = (counts @ scores[:, 0]) / (counts @ scores[:, 1])
    with np.errstate(over="ignore"):
        return {"eval_loss": loss, "perplexity": np.exp(loss)}


def resampled(probabilities: Probabilities, labels: Labels, counts: Counts) -> dict[str, Drawn]:
    """Every figure of a classifier, by name."""
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
