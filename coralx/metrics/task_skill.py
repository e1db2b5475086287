"""P1 `task_skill`: macro-AUROC over the tasks of a run; and how figures of tasks become a run's.

With one task it is that task's AUROC (`skill.auroc`: with more than two classes one against the
rest, macro), with several the mean of theirs, each counting as much; 0 to 1, to be maximised,
undefined where a class of any task has no row. The same mean is taken of every other figure; that
of one task alone is called `figure@task`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coralx.config.metric_catalogue import OF_TASK

Figure = NDArray[np.float64]
"""A figure, or the same on many resamples; NaN where it is undefined."""


def macro(by_task: Mapping[str, Mapping[str, Figure]]) -> dict[str, Figure]:
    """The figures of a run, of those of its tasks: means over the tasks that have such a figure,
    undefined where it is in one of them; beside them each named task's own."""
    names = dict.fromkeys(name for figures in by_task.values() for name in figures)
    run = {
        name: np.mean([figures[name] for figures in by_task.values() if name in figures], axis=0)
        for name in names
    }
    if "auroc" in run:
        run["task_skill"] = run["auroc"]
    own = {
        f"{name}{OF_TASK}{task}": figure
        for task, figures in by_task.items()
        if task
        for name, figure in figures.items()
    }
    return {**run, **own}
