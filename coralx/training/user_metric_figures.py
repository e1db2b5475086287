"""Figures of the user's own metrics, from the scores of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from coralx.backends.protocol import Beat, no_beat
from coralx.config.metric_catalogue import OF_TASK
from coralx.config.schema import Config
from coralx.metrics.compute import Figures
from coralx.metrics.row_scores import RowScores, ScoresByTask
from coralx.metrics.safety import withstood
from coralx.metrics.task_skill import macro
from coralx.metrics.user_metrics import Predictions
from coralx.training import user_functions as functions
from coralx.training.task_parts import TaskPart

Split = Literal["validation", "test"]
Number = TypeVar("Number", np.float64, np.int64)


class UserMetricFigures:
    """The metrics of `names`, loaded once.

    Raises ConfigError where one cannot be found, or fails on uninformative predictions, with which
    each is tried before anything is trained.
    """

    def __init__(self, config: Config, names: Sequence[str], parts: Sequence[TaskPart]) -> None:
        self._parts = parts
        self._metrics = {name: functions.metric(config, name) for name in names}
        self.why_undefined: dict[str, str] = {}
        """By metric: why it had no value the last time."""
        trial = {part.name: _uninformative(part) for part in parts}
        self.figures("validation", trial, no_beat)

    def figures(self, split: Split, scores: ScoresByTask, beat: Beat) -> Figures:
        """Named as those of the catalogue are: each task's, and their mean over tasks."""
        by_task: dict[str, dict[str, NDArray[np.float64]]] = {}
        self.why_undefined = {}
        for part in self._parts:
            predictions = _predictions(part, split, scores[part.name])
            own = by_task[part.name] = {}
            for name, metric in self._metrics.items():
                beat()  # a metric may take its time
                value = metric(predictions)
                own[name] = np.array(np.nan if value is None else value)
                if metric.undefined:
                    for key in (name, name_for_task(name, part.name)):
                        self.why_undefined.setdefault(key, metric.undefined)
        values = macro(by_task)
        return {name: float(v) if np.isfinite(v) else None for name, v in values.items()}


def name_for_task(name: str, task: str) -> str:
    """What a metric is called that is of one task alone."""
    return f"{name}{OF_TASK}{task}" if task else name


def _predictions(part: TaskPart, split: Split, rows: RowScores) -> Predictions:
    """What a metric of the user's is given: copies, which it cannot change."""
    examples = part.splits[split].examples[: len(rows.scores)]
    none = np.zeros(0)
    classified = rows.labels is not None
    failed = withstood(rows)
    return Predictions(
        task=part.name,
        split=split,
        texts=tuple(example.text for example in examples),
        groups=tuple(example.group for example in examples),
        classes=part.labels,
        probabilities=_frozen(rows.scores if classified else none.reshape(0, 0)),
        labels=_frozen(rows.labels if rows.labels is not None else none.astype(np.int64)),
        losses=_frozen(none.reshape(0, 2) if classified else rows.scores),
        withstood=_frozen(none if failed is None else failed),
    )


def _frozen(values: NDArray[Number]) -> NDArray[Number]:
    copied = values.copy()
    copied.setflags(write=False)
    return copied


def _uninformative(part: TaskPart) -> RowScores:
    """The scores that a model without any knowledge gives the validation split."""
    validation = part.splits["validation"]
    rows = len(validation.rows.ids)
    attacks = None if validation.attacks is None else np.zeros(len(validation.attacks.ids))
    if not part.labels:
        return RowScores(np.ones((rows, 2)), withstood=attacks)
    even = np.full((rows, len(part.labels)), 1.0 / len(part.labels))
    return RowScores(even, validation.rows.labels, validation.groups, attacks)
