"""The metrics that a config may name: direction, range, and when each is undefined.

How each is computed stands in `coralx.objectives`; here only what a config needs to be checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from coralx.config.suggest import did_you_mean

Direction = Literal["maximize", "minimize"]
Task = Literal["sequence-classification", "label-tokens", "sft"]

CLASSIFICATION: tuple[Task, ...] = ("sequence-classification", "label-tokens")
CAUSAL: tuple[Task, ...] = ("label-tokens", "sft")
"""Tasks of causal language models."""

EVERY_TASK: tuple[Task, ...] = ("sequence-classification", "label-tokens", "sft")


@dataclass(frozen=True)
class Metric:
    """`source`: read off predictions, off the adapter, or off the training steps themselves."""

    direction: Direction
    source: Literal["predictions", "adapter", "training"]
    range: str
    undefined: str = "never"
    tasks: tuple[Task, ...] = EVERY_TASK


CATALOGUE: dict[str, Metric] = {
    "auroc": Metric("maximize", "predictions", "0 to 1", "a class has no row", CLASSIFICATION),
    "accuracy": Metric("maximize", "predictions", "0 to 1", tasks=CLASSIFICATION),
    "f1": Metric("maximize", "predictions", "0 to 1", tasks=CLASSIFICATION),
    "precision": Metric("maximize", "predictions", "0 to 1", tasks=CLASSIFICATION),
    "recall": Metric("maximize", "predictions", "0 to 1", tasks=CLASSIFICATION),
    "calibration": Metric("minimize", "predictions", "0 to 1", tasks=CLASSIFICATION),
    "eval_loss": Metric("minimize", "predictions", "0 upward"),
    "perplexity": Metric("minimize", "predictions", "1 upward", tasks=("sft",)),
    "trainable_parameters": Metric("minimize", "adapter", "1 upward"),
    "adapter_bytes": Metric("minimize", "adapter", "1 upward"),
    "train_loss": Metric("minimize", "training", "0 upward"),
    "gradient_norm": Metric("minimize", "training", "0 upward"),
    "loss_slope": Metric("minimize", "training", "any", "fewer than three steps after warm-up"),
}


def check_metric(name: object) -> object:
    """Pass a known metric's name through; raises ValueError with the nearest known one."""
    if isinstance(name, str) and name not in CATALOGUE:
        raise ValueError(
            f"no metric of that name{did_you_mean(name, CATALOGUE)}; known: {', '.join(CATALOGUE)}"
        )
    return name


def default_objectives(task: Task) -> tuple[str, str]:
    """Skill against size, each in its natural direction."""
    return "eval_loss" if task == "sft" else "auroc", "trainable_parameters"


def offered_metrics(task: Task, names: Iterable[str]) -> None:
    """Raise ValueError naming the first of `names` that a task has no figure for."""
    for name in names:
        if task not in CATALOGUE[name].tasks:
            offered = ", ".join(known for known, m in CATALOGUE.items() if task in m.tasks)
            raise ValueError(f"the task {task!r} has no metric {name!r}; it has {offered}")
