"""Confidence intervals of every figure that is read off predictions, by a method that holds for it.

`benchmarks/objectives/simulated_coverage.py` simulates how often each covers what it is of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from coralx.config.metric_catalogue import OF_TASK, of_task
from coralx.metrics import delong, operating_point
from coralx.metrics.bootstrap import RESAMPLES, drawn_figures, percentile_interval
from coralx.metrics.calibration import calibration_interval, scaled
from coralx.metrics.classification import auroc
from coralx.metrics.compute import SETTLED, clean_flagged, clean_rows, figures, task_figures
from coralx.metrics.false_positive_cost import positives
from coralx.metrics.proportion_intervals import LEVEL, Ends, effective_rows, of_mean, wilson
from coralx.metrics.resampled_figures import Drawn
from coralx.metrics.robustness import judged_groups
from coralx.metrics.row_scores import Labels, RowScores, Said
from coralx.records.results import Interval

LANGUAGE = ("eval_loss", "perplexity")
"""Of language models the bootstrap's percentiles, which whole examples are drawn for."""

TOO_FEW = f"fewer than {delong.LEAST_ROWS} rows of a class"
TOO_FEW_POSITIVES = (
    f"fewer than {operating_point.LEAST_POSITIVES} positive validation rows, "
    "which settle the threshold"
)
NOT_KEPT = "what validation settles was not kept by the earlier version that measured it"
NOTHING_CALLED = "no row was called positive"
NOT_DEFINED = "it is undefined"

Found = Ends | str
"""The ends, or why there are none."""


@dataclass(frozen=True)
class _Asked:
    """One task's rows, the figure on their resamples, and how draws are made."""

    rows: RowScores
    labels: Labels
    drawn: Drawn
    seed: int
    resamples: int


def intervals(said: Said, seed: int, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """All figures of a run with 95 % intervals; where a figure has none, `remark` says why.

    A run's figure is a mean over its tasks, which are independent; its interval is made of theirs.
    """
    values = {
        name: value
        for name, value in figures(said).items()
        if not name.startswith(tuple(SETTLED.values()))
    }
    if not all(rows.is_finite for rows in said.values()):
        return {name: Interval(None, None, None) for name in values}
    drawn = drawn_figures({"it": said}, seed, resamples)["it"]
    of_language = all(rows.labels is None for rows in said.values())
    own = {task: _task_intervals(rows, task, drawn, seed, resamples) for task, rows in said.items()}
    found = {}
    for name, value in values.items():
        metric, task = of_task(name)
        if value is None:
            found[name] = Interval(None, None, None)
        elif of_language and metric in LANGUAGE:
            ends = percentile_interval(drawn[name])
            found[name] = _interval(value, ends if ends is not None else NOT_DEFINED)
        elif OF_TASK in name:
            found[name] = own[task][metric]
        else:
            own_name = "auroc" if name == "task_skill" else name
            parts = [by_name[own_name] for by_name in own.values() if own_name in by_name]
            found[name] = _interval(value, _mean(parts))
    return found


def _interval(value: float, found: Found) -> Interval:
    if isinstance(found, str):
        return Interval(value, None, None, found)
    return Interval(value, *found)


def _mean(parts: list[Interval]) -> Found:
    known = [(p.value, (p.low, p.high)) for p in parts if p.value is not None]
    values, ends = [], []
    for value, (low, high) in known:
        if low is None or high is None:
            return next(p.remark or NOT_DEFINED for p in parts if p.low is None)
        values.append(value)
        ends.append((low, high))
    return of_mean(values, ends)


def _task_intervals(
    rows: RowScores, task: str, drawn: Mapping[str, Drawn], seed: int, resamples: int
) -> dict[str, Interval]:
    """One task's figures, but for a language model's losses."""
    found = {}
    for name, value in task_figures(rows).items():
        labels = rows.labels if rows.labels is not None else np.zeros(0, dtype=np.int64)
        if value is None:
            found[name] = Interval(None, None, None)
        elif name in _METHODS:
            of_its_own = drawn[f"{name}{OF_TASK}{task}" if task else name]
            asked = _Asked(rows, labels, of_its_own, seed, resamples)
            found[name] = _interval(value, _METHODS[name](asked, value))
    return found


def _mean_loss(asked: _Asked, value: float) -> Found:
    """Of a mean over rows, which is no less than 0, on the logarithm's scale: from the bootstrap's
    standard error, by Student's t with as many degrees as the rarest class has rows but one, which
    is what such a mean may hang on (Efron and Tibshirani 1993, section 12.3)."""
    fewest = int(np.bincount(asked.labels, minlength=asked.rows.scores.shape[1]).min())
    if fewest < delong.LEAST_ROWS:
        return TOO_FEW
    error = float(np.nanstd(asked.drawn)) * math.sqrt(fewest / (fewest - 1))
    if not value or not error:
        return value, value
    reach = math.exp(float(student.ppf((1.0 + LEVEL) / 2.0, fewest - 1)) * error / value)
    return value / reach, value * reach


def _auroc(asked: _Asked, value: float) -> Found:
    return delong.auroc_interval(asked.rows.scores, asked.labels, value) or TOO_FEW


def _robustness(asked: _Asked, value: float) -> Found:  # noqa: ARG001
    groups, scores = asked.rows.groups, asked.rows.scores
    if groups is None:
        return NOT_DEFINED
    members = [groups == g for g in judged_groups(asked.labels, groups, scores.shape[1])]
    parts = [(scores[own], asked.labels[own]) for own in members]
    areas = [(own, labels, auroc(own, labels)) for own, labels in parts]
    return delong.worst_interval([(*_, a) for *_, a in areas if a is not None]) or TOO_FEW


def _calibration(asked: _Asked, value: float) -> Found:  # noqa: ARG001
    return calibration_interval(asked.rows.scores, asked.labels, asked.seed, asked.resamples)


def _calibration_scaled(asked: _Asked, value: float) -> Found:  # noqa: ARG001
    heat = asked.rows.temperature
    if heat is None:
        return NOT_DEFINED
    cooled = scaled(asked.rows.scores, heat)
    return calibration_interval(cooled, asked.labels, asked.seed, asked.resamples)


def _accuracy(asked: _Asked, value: float) -> Found:
    return wilson(value, len(asked.labels))


Counted = Callable[[NDArray[np.bool_], NDArray[np.bool_]], tuple[float, Ends | None]]
"""A share of one class and its interval, by which rows are called so, and which are so."""


def _recall_of(called: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> tuple[float, Ends | None]:
    return _share((called & wanted)[wanted])


def _precision_of(
    called: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> tuple[float, Ends | None]:
    return _share((called & wanted)[called])


def _f1_of(called: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> tuple[float, Ends | None]:
    """F1 is 2 J / (1 + J), with J the share of the rows that are called so or are so which are
    both."""
    share, ends = _share((called & wanted)[called | wanted])
    if ends is None:
        return 0.0, None
    low, high = (2.0 * end / (1.0 + end) for end in ends)
    return 2.0 * share / (1.0 + share), (low, high)


def _share(hits: NDArray[np.bool_]) -> tuple[float, Ends | None]:
    if not len(hits):
        return 0.0, None
    return float(hits.mean()), wilson(float(hits.mean()), len(hits))


def _by_class(
    counted: Counted, *, every: bool = False, dependent: bool = False
) -> Callable[[_Asked, float], Found]:
    """Of the positive class, or the mean over all with more than two (`every`: with two, too)."""

    def method(asked: _Asked, value: float) -> Found:  # noqa: ARG001
        classes = asked.rows.scores.shape[1]
        called = asked.rows.scores.argmax(axis=1)
        values, ends = [], []
        for wanted in range(classes) if every or classes > 2 else [1]:
            share, found = counted(called == wanted, asked.labels == wanted)
            if found is None:
                return NOTHING_CALLED if classes == 2 else "a class has no row, or was never called"
            values.append(share)
            ends.append(found)
        return of_mean(values, ends, dependent=dependent)

    return method


def _safety(asked: _Asked, value: float) -> Found:
    rows = asked.rows
    if rows.attacked is None:
        return _safety_argmax(asked, value)
    return _at_threshold(rows.attacked, rows, rows.sources)


def _safety_argmax(asked: _Asked, value: float) -> Found:
    withstood = asked.rows.withstood
    if withstood is None:
        return NOT_DEFINED
    return wilson(value, effective_rows(withstood, asked.rows.sources))


def _false_positive_cost(asked: _Asked, value: float) -> Found:  # noqa: ARG001
    return _at_threshold(clean_rows(asked.rows), asked.rows)


def _at_threshold(
    judged: NDArray[np.float64], rows: RowScores, clusters: Labels | None = None
) -> Found:
    if rows.threshold is None:
        return NOT_DEFINED
    if rows.positives is None:
        return NOT_KEPT
    ends = operating_point.rate_interval(judged, rows.positives, rows.threshold, clusters)
    return ends or TOO_FEW_POSITIVES


def _recall_at_threshold(asked: _Asked, value: float) -> Found:
    """At the very threshold, as it would be deployed."""
    return wilson(value, len(positives(asked.rows.scores, asked.labels)))


def _false_positive_rate_argmax(asked: _Asked, value: float) -> Found:
    return wilson(value, len(clean_flagged(asked.rows)))


_METHODS: dict[str, Callable[[_Asked, float], Found]] = {
    "auroc": _auroc,
    "brier": _mean_loss,
    "eval_loss": _mean_loss,
    "accuracy": _accuracy,
    "balanced_accuracy": _by_class(_recall_of, every=True),
    "precision": _by_class(_precision_of),
    "recall": _by_class(_recall_of),
    "f1": _by_class(_f1_of, dependent=True),
    "calibration": _calibration,
    "calibration_scaled": _calibration_scaled,
    "robustness": _robustness,
    "safety": _safety,
    "safety_argmax": _safety_argmax,
    "false_positive_cost": _false_positive_cost,
    "false_positive_rate_argmax": _false_positive_rate_argmax,
    "recall_at_threshold": _recall_at_threshold,
}
