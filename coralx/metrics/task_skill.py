"""P1 `task_skill`: macro-AUROC over the tasks of a run; and how figures of tasks become a run's.

With one task it is that task's AUROC (`classification.auroc`), with several the mean of theirs,
each task counting alike; 0 to 1, to be maximised, undefined where a class of any task has no row.
The same mean is taken of every other figure; that of one task alone is called `figure@task`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coralx.config.metric_catalogue import OF_TASK

Figure = NDArray[np.float64]
"""A figure, or the same on many resamples; NaN where it is undefined."""


def macro(by_task: Mapping[str, Mapping[str, Figure]]) -> dict[str, Figure]:
    """A run's figures from those of its tasks: means over the tasks that have such a figure,
    undefined where one of them has an undefined one; then each named task's own."""
    parts: dict[str, list[Figure]] = {}
    own: dict[str, Figure] = {}
    for task, figures in by_task.items():
        for name, figure in figures.items():
            parts.setdefault(name, []).append(figure)
            if task:
                own[f"{name}{OF_TASK}{task}"] = figure
    run = {name: np.mean(of_tasks, axis=0) for name, of_tasks in parts.items()}
    if "auroc" in run:
        run["task_skill"] = run["auroc"]
    return {**run, **own}
