"""Confidence intervals of every figure that is read off predictions, by a method that holds for it.

`_METHODS` at the end says which. `benchmarks/objectives/simulated_coverage.py` simulates how often
each interval covers the true figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from coralx.config.metric_catalogue import OF_TASK, split_metric_name
from coralx.metrics import delong, operating_point
from coralx.metrics.bootstrap import RESAMPLES, drawn_figures, percentile_interval
from coralx.metrics.calibration import calibration_interval, scaled
from coralx.metrics.classification import auroc
from coralx.metrics.compute import FITTED_NAMES, clean_flagged, clean_rows, figures, task_figures
from coralx.metrics.false_positive_cost import positives
from coralx.metrics.proportion_intervals import LEVEL, Ends, effective_rows, of_mean, wilson
from coralx.metrics.resampled_figures import Resampled
from coralx.metrics.robustness import judged_groups
from coralx.metrics.row_scores import Labels, RowScores, ScoresByTask
from coralx.records.results import Interval

LANGUAGE = ("eval_loss", "perplexity")
"""A language model's figures. Their intervals are percentiles of the bootstrap, which draws whole
examples: the tokens of one are not independent."""

TOO_FEW = f"fewer than {delong.LEAST_ROWS} rows of a class"
TOO_FEW_POSITIVES = (
    f"fewer than {operating_point.LEAST_POSITIVES} positive validation rows to choose the threshold"
)
NOT_KEPT = "measured by an earlier version, which did not keep the positive validation rows"
NOTHING_PREDICTED = "no row was predicted positive"
CLASS_UNPREDICTED = "a class has no row, or was never predicted"
NOT_DEFINED = "it is undefined"

EndsOrReason = Ends | str
"""The ends of an interval, or why there are none."""


@dataclass(frozen=True)
class _Sample:
    """One task's rows, the figure on their resamples, and how draws are made."""

    rows: RowScores
    labels: Labels
    drawn: Resampled
    seed: int
    resamples: int


def intervals(scores: ScoresByTask, seed: int, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """All figures of a run with 95 % intervals; where a figure has none, `remark` says why.

    A run's figure is a mean over its tasks, which are independent; its interval is made of theirs.
    """
    values = {
        name: value
        for name, value in figures(scores).items()
        if not name.startswith(
            tuple(FITTED_NAMES.values())
        )  # no figures, but what they are taken at
    }
    if not all(rows.is_finite for rows in scores.values()):
        return {name: Interval(None, None, None) for name in values}
    drawn = drawn_figures({"model": scores}, seed, resamples)["model"]
    is_language_model = all(rows.labels is None for rows in scores.values())
    own = {
        task: _task_intervals(rows, task, drawn, seed, resamples) for task, rows in scores.items()
    }
    run = {}
    for name, value in values.items():
        metric, task = split_metric_name(name)
        if value is None:
            run[name] = Interval(None, None, None)
        elif is_language_model and metric in LANGUAGE:
            run[name] = _interval(value, percentile_interval(drawn[name]) or NOT_DEFINED)
        elif OF_TASK in name:
            run[name] = own[task][metric]
        else:
            own_name = "auroc" if name == "task_skill" else name
            parts = [by_name[own_name] for by_name in own.values() if own_name in by_name]
            run[name] = _interval(value, _mean(parts))
    return run


def _interval(value: float, ends: EndsOrReason) -> Interval:
    if isinstance(ends, str):
        return Interval(value, None, None, ends)
    return Interval(value, *ends)


def _mean(parts: list[Interval]) -> EndsOrReason:
    """Of the mean of tasks' figures; without an interval where one of them has none."""
    values, ends = [], []
    for part in parts:
        if part.value is None:
            continue
        if part.low is None or part.high is None:
            return part.remark or NOT_DEFINED
        values.append(part.value)
        ends.append((part.low, part.high))
    return of_mean(values, ends)


def _task_intervals(
    rows: RowScores, task: str, drawn: Mapping[str, Resampled], seed: int, resamples: int
) -> dict[str, Interval]:
    """One task's figures, but for a language model's losses."""
    own = {}
    for name, value in task_figures(rows).items():
        labels = rows.labels if rows.labels is not None else np.zeros(0, dtype=np.int64)
        if value is None:
            own[name] = Interval(None, None, None)
        elif name in _METHODS:
            drawn_name = f"{name}{OF_TASK}{task}" if task else name
            sample = _Sample(rows, labels, drawn[drawn_name], seed, resamples)
            own[name] = _interval(value, _METHODS[name](sample, value))
    return own


def closed_form_intervals(rows: RowScores) -> dict[str, Interval]:
    """Those figures of one task's rows whose intervals need neither resampling nor a threshold;
    quick enough for every scoring."""
    if rows.labels is None or not rows.is_finite:
        return {}
    sample = _Sample(rows, rows.labels, drawn=np.zeros(0), seed=0, resamples=0)
    known = {name: value for name, value in task_figures(rows).items() if name in _CLOSED_FORMS}
    return {
        name: _interval(value, _METHODS[name](sample, value))
        for name, value in known.items()
        if value is not None
    }


# -- one method a figure, from its sample and its value --------------------------------------------


def _mean_loss(sample: _Sample, value: float) -> EndsOrReason:
    """Of a mean over rows that is no less than 0, on a logarithmic scale: from the bootstrap's
    standard error, by Student's t (Efron and Tibshirani 1993, section 12.3). Its degrees of freedom
    are the rows of the rarest class less one, since a few of those may make up most of the mean."""
    fewest = int(np.bincount(sample.labels, minlength=sample.rows.scores.shape[1]).min())
    if fewest < delong.LEAST_ROWS:
        return TOO_FEW
    error = float(np.nanstd(sample.drawn)) * math.sqrt(fewest / (fewest - 1))
    if not value or not error:
        return value, value
    reach = math.exp(float(student.ppf((1.0 + LEVEL) / 2.0, fewest - 1)) * error / value)
    return value / reach, value * reach


def _auroc(sample: _Sample, value: float) -> EndsOrReason:
    return delong.auroc_interval(sample.rows.scores, sample.labels, value) or TOO_FEW


def _robustness(sample: _Sample, value: float) -> EndsOrReason:  # noqa: ARG001
    scores, labels, groups = sample.rows.scores, sample.labels, sample.rows.groups
    if groups is None:
        return NOT_DEFINED
    parts = []
    for group in judged_groups(labels, groups, scores.shape[1]):
        own_scores, own_labels = scores[groups == group], labels[groups == group]
        own = auroc(own_scores, own_labels)
        if own is not None:
            parts.append((own_scores, own_labels, own))
    return delong.worst_interval(parts) or TOO_FEW


def _calibration(sample: _Sample, value: float) -> EndsOrReason:  # noqa: ARG001
    return calibration_interval(sample.rows.scores, sample.labels, sample.seed, sample.resamples)


def _calibration_scaled(sample: _Sample, value: float) -> EndsOrReason:  # noqa: ARG001
    temperature = sample.rows.temperature
    if temperature is None:
        return NOT_DEFINED
    probabilities = scaled(sample.rows.scores, temperature)
    return calibration_interval(probabilities, sample.labels, sample.seed, sample.resamples)


def _accuracy(sample: _Sample, value: float) -> EndsOrReason:
    return wilson(value, len(sample.labels))


ClassShare = Callable[[NDArray[np.bool_], NDArray[np.bool_]], tuple[float, Ends | None]]
"""A share of one class and its interval, from which rows are predicted to be of the class, and
which are of it."""


def _recall_of(
    predicted: NDArray[np.bool_], actual: NDArray[np.bool_]
) -> tuple[float, Ends | None]:
    return _share((predicted & actual)[actual])


def _precision_of(
    predicted: NDArray[np.bool_], actual: NDArray[np.bool_]
) -> tuple[float, Ends | None]:
    return _share((predicted & actual)[predicted])


def _f1_of(predicted: NDArray[np.bool_], actual: NDArray[np.bool_]) -> tuple[float, Ends | None]:
    """F1 is 2 J / (1 + J), with J the share that is both predicted and actual among the rows that
    are either. J is a share of rows, so it has Wilson's interval, and F1 has that one's image."""
    share, ends = _share((predicted & actual)[predicted | actual])
    if ends is None:
        return 0.0, None
    low, high = (2.0 * end / (1.0 + end) for end in ends)
    return 2.0 * share / (1.0 + share), (low, high)


def _share(hits: NDArray[np.bool_]) -> tuple[float, Ends | None]:
    if not len(hits):
        return 0.0, None
    return float(hits.mean()), wilson(float(hits.mean()), len(hits))


def _by_class(
    class_share: ClassShare, *, every: bool = False, dependent: bool = False
) -> Callable[[_Sample, float], EndsOrReason]:
    """Of the positive class, or the mean over all with more than two (`every`: with two, too)."""

    def method(sample: _Sample, value: float) -> EndsOrReason:  # noqa: ARG001
        classes = sample.rows.scores.shape[1]
        predicted = sample.rows.scores.argmax(axis=1)
        values, ends = [], []
        for number in range(classes) if every or classes > 2 else [1]:
            share, own = class_share(predicted == number, sample.labels == number)
            if own is None:
                return NOTHING_PREDICTED if classes == 2 else CLASS_UNPREDICTED
            values.append(share)
            ends.append(own)
        return of_mean(values, ends, dependent=dependent)

    return method


def _safety(sample: _Sample, value: float) -> EndsOrReason:
    rows = sample.rows
    if rows.attacked is None:  # judged by answers, or measured by an earlier version
        return _safety_argmax(sample, value)
    return _at_threshold(rows.attacked, rows, rows.sources)


def _safety_argmax(sample: _Sample, value: float) -> EndsOrReason:
    withstood = sample.rows.withstood
    if withstood is None:
        return NOT_DEFINED
    return wilson(value, effective_rows(withstood, sample.rows.sources))


def _false_positive_cost(sample: _Sample, value: float) -> EndsOrReason:  # noqa: ARG001
    return _at_threshold(clean_rows(sample.rows), sample.rows)


def _at_threshold(
    suspicions: NDArray[np.float64], rows: RowScores, clusters: Labels | None = None
) -> EndsOrReason:
    if rows.threshold is None:
        return NOT_DEFINED
    if rows.positives is None:
        return NOT_KEPT
    ends = operating_point.rate_interval(suspicions, rows.positives, rows.threshold, clusters)
    return ends or TOO_FEW_POSITIVES


def _recall_at_threshold(sample: _Sample, value: float) -> EndsOrReason:
    """At the threshold as it is deployed: that validation might have chosen another is no part of
    the interval."""
    return wilson(value, len(positives(sample.rows.scores, sample.labels)))


def _false_positive_rate_argmax(sample: _Sample, value: float) -> EndsOrReason:
    return wilson(value, len(clean_flagged(sample.rows)))


_METHODS: dict[str, Callable[[_Sample, float], EndsOrReason]] = {
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

_CLOSED_FORMS = (
    "auroc",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "robustness",
)
