"""What the active adapter is worth: figures of the validation rows, and the final measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from coralx.data.tasks import Encoded, Figures, Task
from coralx.objectives.scores import write_scores
from coralx.records import MeasureJob
from coralx.results import Interval, Measurement, Metrics
from coralx.training.backend import Beat
from coralx.training.loop import predict


class Evaluation:
    """Scores the model as it stands, in the context `scoring`. `seed` is the bootstrap's."""

    def __init__(
        self,
        model: Any,
        task: Task,
        splits: Mapping[str, Encoded],
        scoring: Callable[[], AbstractContextManager[Any]],
        seed: int,
    ) -> None:
        self._model = model
        self._task = task
        self._splits = splits
        self._scoring = scoring
        self._seed = seed

    def validated(self, limit: int | None, beat: Beat) -> Figures | None:
        """The figures of the first `limit` validation rows, which are in a stratified order; None
        where a score is no finite number."""
        data = self._splits["validation"].first(limit)
        scores = predict(self._model, self._task, data, self._scoring, beat)
        return self._task.figures(scores, data) if np.isfinite(scores).all() else None

    def measured(self, job: MeasureJob, costs: Metrics, beat: Beat) -> Measurement:
        """Figures of both splits; what the adapter says about each row of the test split is
        kept."""
        validation = job.validation
        if validation is None:
            data = self._splits["validation"]
            scores = predict(self._model, self._task, data, self._scoring, beat)
            validation = {**self._task.figures(scores, data), **costs}
        data = self._splits["test"]
        scores = predict(self._model, self._task, data, self._scoring, beat)
        measured = self._task.intervals(scores, data, self._seed)
        exact = {name: Interval(value, value, value) for name, value in costs.items()}
        kept = None
        if job.scores is not None:
            kept = write_scores(Path(job.scores), self._task.by_row(scores, data))
        name = job.genome.id if job.genome else None
        return Measurement(name, validation, {**measured, **exact}, kept)


def undefined(figures: Metrics, rows: int) -> tuple[str, ...]:
    """A remark on figures that these rows cannot tell: a class has none of them."""
    names = [name for name, value in figures.items() if value is None]
    if not names:
        return ()
    return (
        f"{', '.join(names)} undefined: the {rows} validation rows that are scored do not tell (a "
        "class has none of them?)",
    )
