"""Figures on resampled rows, a thousand resamples in a few matrix products: how the figures of two
models move together, and the intervals of means.

A resample is a row of counts: how often each example was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coralx.metrics.false_positive_cost import flagged_of, suspicion
from coralx.metrics.resampled_figures import Counts, Drawn, counted_auroc, resampled
from coralx.metrics.robustness import judged_groups
from coralx.metrics.row_scores import Labels, LanguageScores, Probabilities, RowScores, Said
from coralx.metrics.safety import flagged
from coralx.metrics.task_skill import macro
from coralx.rng import generator

RESAMPLES = 1000
CHUNK = 1 << 22
"""Counts held at once."""

Name = TypeVar("Name")

Figures = Callable[[RowScores, Counts, Drawn], dict[str, Drawn]]
"""The figures of a table of rows on resamples, each with its own threshold."""

TOTALS = "totals"
"""Among the drawn figures of one task: losses and tokens, shape (resamples, 2), to be summed."""


def drawn_figures(
    models: Mapping[Name, Said], seed: int, resamples: int = RESAMPLES
) -> dict[Name, dict[str, Drawn]]:
    """Every model's figures by name, all on the same resamples, so that they can be compared draw
    by draw; those of a model are the same in whatever company. Each task's rows, attacks and clean
    hold-out are drawn for themselves, rewritings of one row together; so are the positive rows of
    validation, on which the threshold is settled anew. Files of earlier versions do not know those:
    what is told by the threshold is undefined. The temperature stays as it is.

    Raises ValueError for models that scored different rows.
    """
    if not models:
        return {}
    first = next(iter(models.values()))
    if not all(_score_the_same_rows(first, said) for said in models.values()):
        raise ValueError("models that scored different rows cannot be compared draw by draw")
    by_task: dict[Name, dict[str, dict[str, Drawn]]] = {name: {} for name in models}
    totals: dict[Name, list[Drawn]] = {name: [] for name in models}
    for task in first:
        rows = {name: said[task] for name, said in models.items()}
        for name, found in _drawn_task_figures(rows, task, seed, resamples).items():
            totals[name] += [found.pop(TOTALS)] if TOTALS in found else []
            by_task[name][task] = found
    drawn = {name: macro(tasks) for name, tasks in by_task.items()}
    for name, parts in totals.items():
        if parts:
            drawn[name]["perplexity"] = _perplexity(np.sum(parts, axis=0))
    return drawn


def _drawn_task_figures(
    models: Mapping[Name, RowScores], task: str, seed: int, resamples: int
) -> dict[Name, dict[str, Drawn]]:
    """One task's figures of every model."""
    first = next(iter(models.values()))
    tables: list[tuple[str, NDArray[np.int64], Figures]] = [
        ("", np.arange(len(first.scores)), _row_figures)
    ]
    if first.withstood is not None:
        tables.append(("attacks", _clusters(first), _attack_figures))
    if first.clean is not None:
        tables.append(("clean", np.arange(len(first.clean)), _clean_figures))
    thresholds = _drawn_thresholds(models, task, seed, resamples)
    found: dict[Name, dict[str, Drawn]] = {name: {} for name in models}
    for table, clusters, figures in tables:
        chunks: dict[Name, list[dict[str, Drawn]]] = {name: [] for name in models}
        done = 0
        for drawn in _draws(int(clusters.max()) + 1, seed, _index(task, table), resamples):
            counts = drawn[:, clusters]
            for name, rows in models.items():
                limits = thresholds[name][done : done + len(counts)]
                chunks[name].append(figures(rows, counts, limits))
            done += len(counts)
        for name, parts in chunks.items():
            found[name] |= {f: np.concatenate([part[f] for part in parts]) for f in parts[0]}
    return found


def _index(task: str, table: str) -> int | str:
    return f"{task}/{table}" if task or table else 0


def _clusters(rows: RowScores) -> NDArray[np.int64]:
    """Which attacks are drawn together: rewritings of one row."""
    if rows.sources is None:
        return np.arange(0 if rows.withstood is None else len(rows.withstood))
    _, clusters = np.unique(rows.sources, return_inverse=True)
    return clusters.astype(np.int64)


def _drawn_thresholds(
    models: Mapping[Name, RowScores], task: str, seed: int, resamples: int
) -> dict[Name, Drawn]:
    """The threshold of every model on each resample of the positive validation rows; NaN where
    they are not known."""
    found = {name: np.full(resamples, np.nan) for name in models}
    known = {n: r.positives for n, r in models.items() if r.positives is not None}
    sizes = {len(positives) for positives in known.values()}
    if not sizes or sizes == {0}:
        return found
    (size,) = sizes
    done = 0
    for counts in _draws(size, seed, _index(task, "positives"), resamples):
        for name, positives in known.items():
            order = np.argsort(-positives, kind="stable")
            enough = np.cumsum(counts[:, order], axis=1) >= flagged_of(size)
            found[name][done : done + len(counts)] = positives[order][enough.argmax(axis=1)]
        done += len(counts)
    return found


def percentile_interval(drawn: Drawn) -> tuple[float, float] | None:
    """The 95 % percentile interval (Efron and Tibshirani 1993, section 13.3) of a figure, or of a
    difference of two. Draws in which it is undefined do not count; None where no other is left."""
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _score_the_same_rows(first: Said, second: Said) -> bool:
    if list(first) != list(second):
        return False
    return all(_have_the_same_rows(first[task], second[task]) for task in first)


def _have_the_same_rows(first: RowScores, second: RowScores) -> bool:
    """What one of the two does not know, as an earlier version measured it, is no difference."""
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
        counts = rng.multinomial(rows, np.full(rows, 1.0 / rows), size=size)
        yield counts.astype(np.float64)
        left -= size


def _row_figures(rows: RowScores, counts: Counts, thresholds: Drawn) -> dict[str, Drawn]:
    if rows.labels is None:
        return _language_figures(rows.scores, counts)
    found = resampled(rows.scores, rows.labels, counts, rows.temperature)
    looks = suspicion(rows.scores)
    if rows.clean is None:
        negative = rows.labels == 0
        found["false_positive_cost"] = _rate_above(looks, negative, thresholds, counts)
        found["false_positive_rate_argmax"] = _share(flagged(rows.scores), negative, counts)
    limit = np.nan if rows.threshold is None else rows.threshold
    wanted = (rows.labels > 0) & np.isfinite(limit)
    found["recall_at_threshold"] = _share(looks >= limit, wanted, counts)
    if rows.groups is not None:
        found["robustness"] = _robustness(rows.scores, rows.labels, rows.groups, counts)
    return found


def _attack_figures(rows: RowScores, counts: Counts, thresholds: Drawn) -> dict[str, Drawn]:
    if rows.withstood is None:
        return {}
    every = np.ones(len(rows.withstood), dtype=np.bool_)
    withstood = _share(rows.withstood, every, counts)
    if rows.attacked is None:
        return {"safety": withstood}
    safety = _rate_above(rows.attacked, every, thresholds, counts)
    return {"safety": safety, "safety_argmax": withstood}


def _clean_figures(rows: RowScores, counts: Counts, thresholds: Drawn) -> dict[str, Drawn]:
    if rows.clean is None or rows.labels is None:
        return {}
    every = np.ones(len(rows.clean), dtype=np.bool_)
    flags = rows.clean_flagged
    alarms = np.full(len(counts), np.nan) if flags is None else _share(flags, every, counts)
    return {
        "false_positive_cost": _rate_above(rows.clean, every, thresholds, counts),
        "false_positive_rate_argmax": alarms,
    }


def _share(hits: NDArray[Any], among: NDArray[np.bool_], counts: Counts) -> Drawn:
    """Of the rows drawn `among` which it is looked for, the share that are hits."""
    drawn = counts @ among.astype(np.float64)
    found = counts @ (among * hits.astype(np.float64))
    share: Drawn = np.where(drawn > 0, found / np.maximum(drawn, 1.0), np.nan)
    return share


def _rate_above(
    suspicion: NDArray[np.float64],
    among: NDArray[np.bool_],
    thresholds: Drawn,
    counts: Counts,
) -> Drawn:
    """Of the rows drawn `among` which it is looked for, the share that reaches each resample's own
    threshold."""
    order = np.flatnonzero(among)[np.argsort(suspicion[among], kind="stable")]
    below = np.cumsum(counts[:, order], axis=1)
    below = np.concatenate([np.zeros((len(counts), 1)), below], axis=1)
    places = np.searchsorted(suspicion[order], thresholds, side="left")
    total = below[:, -1]
    reached = total - below[np.arange(len(counts)), places]
    defined = (total > 0) & np.isfinite(thresholds)
    rate: Drawn = np.where(defined, reached / np.maximum(total, 1.0), np.nan)
    return rate


def _robustness(
    probabilities: Probabilities, labels: Labels, groups: Labels, counts: Counts
) -> Drawn:
    """The lowest AUROC among the groups that count; draws in which one is undefined have none."""
    judged = judged_groups(labels, groups, probabilities.shape[1])
    if not judged:
        return np.full(len(counts), np.nan)
    each = []
    for group in judged:
        members = np.flatnonzero(groups == group)
        each.append(counted_auroc(probabilities[members], labels[members], counts[:, members]))
    lowest: Drawn = np.min(each, axis=0)
    return lowest


def _language_figures(scores: LanguageScores, counts: Counts) -> dict[str, Drawn]:
    totals = counts @ scores
    loss = totals[:, 0] / totals[:, 1]
    return {"eval_loss": loss, "perplexity": _perplexity(totals), TOTALS: totals}


def _perplexity(totals: Drawn) -> Drawn:
    """Of the losses and tokens of each resample, shape (resamples, 2)."""
    with np.errstate(over="ignore"):
        return np.exp(totals[:, 0] / totals[:, 1])
