"""The bootstrap: a model's figures on a thousand resamples of its rows, in a few matrix products.

They show how the figures of two models vary together, and give the intervals of means. A resample
is a row of counts: how often each example was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coralx.metrics.false_positive_cost import flagged_of, suspicion
from coralx.metrics.resampled_figures import Counts, Resampled, counted_auroc, resampled
from coralx.metrics.robustness import judged_groups
from coralx.metrics.row_scores import Labels, LanguageScores, Probabilities, RowScores, ScoresByTask
from coralx.metrics.safety import flagged
from coralx.metrics.task_skill import macro
from coralx.rng import generator

RESAMPLES = 1000
CHUNK = 1 << 22
"""Counts held at once: 32 MiB."""

Model = TypeVar("Model")
"""The name by which a model is told from the others."""

TableFigures = Callable[[RowScores, Counts, Resampled], dict[str, Resampled]]
"""The figures of a table of rows on resamples, each with its own threshold."""

TOTALS = "totals"
"""Among the drawn figures of one task: losses and tokens, shape (resamples, 2), to be summed."""


def drawn_figures(
    models: Mapping[Model, ScoresByTask], seed: int, resamples: int = RESAMPLES
) -> dict[Model, dict[str, Resampled]]:
    """Every model's figures by name, all on the same resamples, so that they can be compared draw
    by draw; a model's draws do not depend on which others it is compared with.

    Each task's rows, attacks and clean hold-out are drawn separately, rewritings of one row
    together. So are the positive rows of validation, on which each draw chooses its threshold
    again; files of earlier versions lack them, and figures at the threshold are then undefined.
    The temperature is not fitted again.

    Raises ValueError for models that scored different rows.
    """
    if not models:
        return {}
    first = next(iter(models.values()))
    if not all(_score_the_same_rows(first, scores) for scores in models.values()):
        raise ValueError("models that scored different rows cannot be compared draw by draw")
    by_task: dict[Model, dict[str, dict[str, Resampled]]] = {name: {} for name in models}
    totals: dict[Model, list[Resampled]] = {name: [] for name in models}
    for task in first:
        rows = {name: scores[task] for name, scores in models.items()}
        for name, task_figures in _drawn_task_figures(rows, task, seed, resamples).items():
            if TOTALS in task_figures:
                totals[name].append(task_figures.pop(TOTALS))
            by_task[name][task] = task_figures
    drawn = {name: macro(tasks) for name, tasks in by_task.items()}
    # Each token counts alike in a run's perplexity, so it is no mean over its tasks.
    for name, parts in totals.items():
        if parts:
            drawn[name]["perplexity"] = _perplexity(np.sum(parts, axis=0))
    return drawn


def _drawn_task_figures(
    models: Mapping[Model, RowScores], task: str, seed: int, resamples: int
) -> dict[Model, dict[str, Resampled]]:
    """One task's figures of every model."""
    first = next(iter(models.values()))
    tables: list[tuple[str, NDArray[np.int64], TableFigures]] = [
        ("", np.arange(len(first.scores)), _row_figures)
    ]
    if first.withstood is not None:
        tables.append(("attacks", _clusters(first), _attack_figures))
    if first.clean is not None:
        tables.append(("clean", np.arange(len(first.clean)), _clean_figures))
    thresholds = _drawn_thresholds(models, task, seed, resamples)
    drawn: dict[Model, dict[str, Resampled]] = {name: {} for name in models}
    for table, clusters, figures in tables:
        chunks: dict[Model, list[dict[str, Resampled]]] = {name: [] for name in models}
        done = 0
        for cluster_counts in _draws(int(clusters.max()) + 1, seed, _index(task, table), resamples):
            counts = cluster_counts[:, clusters]  # rows of a cluster are drawn together
            for name, rows in models.items():
                own_thresholds = thresholds[name][done : done + len(counts)]
                chunks[name].append(figures(rows, counts, own_thresholds))
            done += len(counts)
        for name, parts in chunks.items():
            for figure in parts[0]:
                drawn[name][figure] = np.concatenate([part[figure] for part in parts])
    return drawn


def _index(task: str, table: str) -> int | str:
    """What tells the draws of one table from those of others. The rows of a run without named tasks
    have the number that they had before there were other tables: draws stay what they were."""
    return f"{task}/{table}" if task or table else 0


def _clusters(rows: RowScores) -> NDArray[np.int64]:
    """Which attacks are drawn together: rewritings of one row."""
    if rows.sources is None:
        return np.arange(0 if rows.withstood is None else len(rows.withstood))
    _, clusters = np.unique(rows.sources, return_inverse=True)
    return clusters.astype(np.int64)


def _drawn_thresholds(
    models: Mapping[Model, RowScores], task: str, seed: int, resamples: int
) -> dict[Model, Resampled]:
    """The threshold of every model on each resample of the positive validation rows; NaN where
    they are not known."""
    thresholds = {name: np.full(resamples, np.nan) for name in models}
    known = {n: r.positives for n, r in models.items() if r.positives is not None}
    sizes = {len(positives) for positives in known.values()}
    if not sizes or sizes == {0}:
        return thresholds
    (size,) = sizes
    done = 0
    for counts in _draws(size, seed, _index(task, "positives"), resamples):
        for name, positives in known.items():
            order = np.argsort(-positives, kind="stable")
            enough = np.cumsum(counts[:, order], axis=1) >= flagged_of(size)
            # argmax of a row of booleans is the place of its first True: the most suspicious row
            # with which enough are flagged.
            thresholds[name][done : done + len(counts)] = positives[order][enough.argmax(axis=1)]
        done += len(counts)
    return thresholds


def percentile_interval(drawn: Resampled) -> tuple[float, float] | None:
    """The 95 % percentile interval (Efron and Tibshirani 1993, section 13.3) of a figure, or of a
    difference of two. Draws in which it is undefined do not count; None where no other is left."""
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _score_the_same_rows(first: ScoresByTask, second: ScoresByTask) -> bool:
    if list(first) != list(second):
        return False
    return all(_have_the_same_rows(first[task], second[task]) for task in first)


def _have_the_same_rows(first: RowScores, second: RowScores) -> bool:
    """`positives` that only one of the two has, since an earlier version measured the other, are no
    difference."""
    for name in ("scores", "groups", "withstood", "clean"):
        one, other = getattr(first, name), getattr(second, name)
        if (one is None) != (other is None) or (one is not None and len(one) != len(other)):
            return False
    if first.labels is None or second.labels is None:
        return first.labels is second.labels
    if not np.array_equal(first.labels, second.labels):
        return False
    known = first.positives, second.positives
    return known[0] is None or known[1] is None or len(known[0]) == len(known[1])


def _draws(rows: int, seed: int, index: int | str, resamples: int) -> Iterator[Counts]:
    """Resamples of `rows` rows with replacement, in chunks that keep memory small."""
    rng = generator(seed, "bootstrap", index=index)
    left = resamples
    while left:
        size = min(left, max(1, CHUNK // rows))
        # How often each row occurs among as many draws with replacement is multinomial.
        counts = rng.multinomial(rows, np.full(rows, 1.0 / rows), size=size)
        yield counts.astype(np.float64)  # numpy multiplies matrices fast only in floats
        left -= size


def _row_figures(rows: RowScores, counts: Counts, thresholds: Resampled) -> dict[str, Resampled]:
    if rows.labels is None:
        return _language_figures(rows.scores, counts)
    figures = resampled(rows.scores, rows.labels, counts, rows.temperature)
    suspicions = suspicion(rows.scores)
    if rows.clean is None:  # without a hold-out, the split's own negative rows are the clean ones
        negative = rows.labels == 0
        figures["false_positive_cost"] = _rate_above(suspicions, negative, thresholds, counts)
        figures["false_positive_rate_argmax"] = _share(flagged(rows.scores), negative, counts)
    # The recall is that of the threshold as it is deployed: this figure does not choose it again.
    threshold = np.nan if rows.threshold is None else rows.threshold
    positive = (rows.labels > 0) & np.isfinite(threshold)
    figures["recall_at_threshold"] = _share(suspicions >= threshold, positive, counts)
    if rows.groups is not None:
        figures["robustness"] = _robustness(rows.scores, rows.labels, rows.groups, counts)
    return figures


def _attack_figures(rows: RowScores, counts: Counts, thresholds: Resampled) -> dict[str, Resampled]:
    if rows.withstood is None:
        return {}
    every = np.ones(len(rows.withstood), dtype=np.bool_)
    withstood = _share(rows.withstood, every, counts)
    if rows.attacked is None:
        return {"safety": withstood}
    safety = _rate_above(rows.attacked, every, thresholds, counts)
    return {"safety": safety, "safety_argmax": withstood}


def _clean_figures(rows: RowScores, counts: Counts, thresholds: Resampled) -> dict[str, Resampled]:
    if rows.clean is None or rows.labels is None:
        return {}
    every = np.ones(len(rows.clean), dtype=np.bool_)
    flags = rows.clean_flagged
    flagged_rate = np.full(len(counts), np.nan) if flags is None else _share(flags, every, counts)
    return {
        "false_positive_cost": _rate_above(rows.clean, every, thresholds, counts),
        "false_positive_rate_argmax": flagged_rate,
    }


def _share(hits: NDArray[Any], members: NDArray[np.bool_], counts: Counts) -> Resampled:
    """The share of the `members` drawn that are hits; NaN where none was drawn."""
    total = counts @ members.astype(np.float64)
    drawn_hits = counts @ (members * hits.astype(np.float64))
    share: Resampled = np.where(total > 0, drawn_hits / np.maximum(total, 1.0), np.nan)
    return share


def _rate_above(
    suspicions: NDArray[np.float64],
    members: NDArray[np.bool_],
    thresholds: Resampled,
    counts: Counts,
) -> Resampled:
    """The share of the `members` drawn whose suspicion reaches the resample's own threshold; NaN
    where none was drawn, or there is no threshold."""
    # In ascending order, the rows below a threshold come first: how many of them were drawn stands
    # in one cumulative sum, which serves every threshold.
    order = np.flatnonzero(members)[np.argsort(suspicions[members], kind="stable")]
    below = np.cumsum(counts[:, order], axis=1)
    below = np.concatenate([np.zeros((len(counts), 1)), below], axis=1)
    places = np.searchsorted(suspicions[order], thresholds, side="left")
    total = below[:, -1]
    reached = total - below[np.arange(len(counts)), places]
    defined = (total > 0) & np.isfinite(thresholds)
    rate: Resampled = np.where(defined, reached / np.maximum(total, 1.0), np.nan)
    return rate


def _robustness(
    probabilities: Probabilities, labels: Labels, groups: Labels, counts: Counts
) -> Resampled:
    """The lowest AUROC among the groups that count; draws in which one is undefined have none."""
    judged = judged_groups(labels, groups, probabilities.shape[1])
    if not judged:
        return np.full(len(counts), np.nan)
    aurocs = []
    for group in judged:
        members = np.flatnonzero(groups == group)
        aurocs.append(counted_auroc(probabilities[members], labels[members], counts[:, members]))
    lowest: Resampled = np.min(aurocs, axis=0)
    return lowest


def _language_figures(scores: LanguageScores, counts: Counts) -> dict[str, Resampled]:
    totals = counts @ scores
    loss = totals[:, 0] / totals[:, 1]
    return {"eval_loss": loss, "perplexity": _perplexity(totals), TOTALS: totals}


def _perplexity(totals: Resampled) -> Resampled:
    """Of the losses and tokens of each resample, shape (resamples, 2)."""
    with np.errstate(over="ignore"):  # beyond any float it is infinite, which counts as undefined
        return np.exp(totals[:, 0] / totals[:, 1])
