"""The metrics that a config may name: direction, range, and when each is undefined.

They are computed in `coralx.metrics` (from predictions) and in `coralx.training` (by measuring);
here stands only what is needed to check a config.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from coralx.records.run_facts import Scale
from coralx.text import did_you_mean

Direction = Literal["maximize", "minimize"]
TaskKind = Literal["sequence-classification", "label-tokens", "sft"]
Modality = Literal["text"]

CLASSIFICATION: tuple[TaskKind, ...] = ("sequence-classification", "label-tokens")
CAUSAL: tuple[TaskKind, ...] = ("label-tokens", "sft")
"""Tasks of causal language models."""

EVERY_TASK: tuple[TaskKind, ...] = ("sequence-classification", "label-tokens", "sft")

READS: dict[TaskKind, tuple[Modality, ...]] = dict.fromkeys(EVERY_TASK, ("text",))
"""The modalities that a task reads of an example."""

MetricSource = Literal["predictions", "adapter", "training", "measurement", "user"]
"""Where a figure comes from: predictions, the adapter's size, the training steps, a measurement on
this machine (which differs a little each time), or a function of the user's."""

QUALITY: tuple[MetricSource, ...] = ("predictions", "user")
"""The sources of figures that say how good an adapter is, rather than how large or slow."""

SPREAD = "_spread"
"""Added to the name of a measured metric: the spread of its repetitions."""

STANDARD_ERROR = "_standard_error"
"""Added to the name of a metric that is read off predictions: how far the figure may be off, as the
rows are a sample."""

OF_TASK = "@"
"""Between a metric and a name in `data.tasks`: the figure of that task alone."""

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Extent:
    """The range and the scale in which hypervolume counts a metric; None: no end."""

    scale: Scale
    low: float | None
    high: float | None


SHARE = Extent("linear", 0.0, 1.0)
LOSS = Extent("loss", 0.0, None)
SIZE = Extent("log", 0.0, 2.0**44)
"""To 16 TiB, more than any machine has for one model. A run knows tighter ends for adapters."""

ANYTHING = Extent("any", None, None)


@dataclass(frozen=True)
class Metric:
    """What is known of a metric before it is computed."""

    direction: Direction | None
    """Its natural direction; None for the user's own, whose direction only the config can say."""
    source: MetricSource
    range: str
    """In words."""
    undefined: str = "never"
    """When it has no value, in words."""
    tasks: tuple[TaskKind, ...] = EVERY_TASK
    """The tasks that have it."""
    needs: Literal["", "attacks", "group"] = ""
    """The key of `data` without which there is nothing to compute it from."""
    modalities: int = 1
    """How many modalities a task must read for it."""
    extent: Extent = SHARE

    @property
    def is_computable(self) -> bool:
        """Whether any task reads enough for it."""
        return any(len(READS[task]) >= self.modalities for task in self.tasks)


def _skill(undefined: str = "never") -> Metric:
    return Metric("maximize", "predictions", "0 to 1", undefined, CLASSIFICATION)


def _error(undefined: str = "never") -> Metric:
    return Metric("minimize", "predictions", "0 to 1", undefined, CLASSIFICATION)


NO_CLASS = "a class has no row"
NO_POSITIVE = "no validation row is positive"

CATALOGUE: dict[str, Metric] = {
    # the six published objectives, P1 to P6
    "task_skill": _skill(NO_CLASS),
    "safety": Metric("maximize", "predictions", "0 to 1", NO_POSITIVE, needs="attacks"),
    "false_positive_cost": _error(f"{NO_POSITIVE}, or no row of the hold-out is clean"),
    "memory": Metric("minimize", "measurement", "0 bytes upward", extent=SIZE),
    "cross_modal_fusion": Metric(
        "maximize",
        "predictions",
        "-1 to 1",
        NO_CLASS,
        CLASSIFICATION,
        modalities=2,
        extent=Extent("linear", -1.0, 1.0),
    ),
    "calibration": _error(),
    # further ones
    "calibration_scaled": _error(),
    "auroc": _skill(NO_CLASS),
    "robustness": Metric(
        "maximize",
        "predictions",
        "0 to 1",
        "no group has twenty rows of every class",
        CLASSIFICATION,
        needs="group",
    ),
    "safety_argmax": Metric(
        "maximize",
        "predictions",
        "0 to 1",
        "answers to the attacks are judged",
        CLASSIFICATION,
        needs="attacks",
    ),
    "false_positive_rate_argmax": _error("no row of the hold-out is clean"),
    "recall_at_threshold": _skill(f"{NO_POSITIVE}, or none of the test split"),
    "accuracy": _skill(),
    "balanced_accuracy": _skill(NO_CLASS),
    "f1": _skill(),
    "precision": _skill(),
    "recall": _skill(),
    "brier": Metric(
        "minimize",
        "predictions",
        "0 to 2 (two classes: to 1)",
        tasks=CLASSIFICATION,
        extent=Extent("linear", 0.0, 2.0),
    ),
    "eval_loss": Metric("minimize", "predictions", "0 upward", extent=LOSS),
    "perplexity": Metric(
        "minimize",
        "predictions",
        "1 upward",
        "it is beyond any number",
        tasks=("sft",),
        extent=Extent("perplexity", 1.0, None),
    ),
    "latency_ms": Metric(
        "minimize",
        "measurement",
        "0 upward",
        extent=Extent("log", 0.0, 3.6e6),  # to an hour
    ),
    "trainable_parameters": Metric("minimize", "adapter", "1 upward", extent=SIZE),
    "adapter_bytes": Metric("minimize", "adapter", "1 upward", extent=SIZE),
    "train_loss": Metric("minimize", "training", "0 upward", extent=LOSS),
    "gradient_norm": Metric(
        "minimize",
        "training",
        "0 upward",
        extent=Extent("log", 0.0, 1e6),
    ),
    "loss_slope": Metric(
        "minimize",
        "training",
        "any",
        "fewer than three steps",
        extent=ANYTHING,
    ),
}

USER_METRIC = Metric(None, "user", "any", "the function returned None", extent=ANYTHING)
"""A metric of the user's own, `module:function`."""


def is_function(name: str) -> bool:
    """Whether a name is that of a function of the user's, `module:function`."""
    return _FUNCTION.fullmatch(name) is not None


def split_metric_name(name: str) -> tuple[str, str]:
    """The two parts of a metric's name: `auroc@toxicity` is the AUROC of the task `toxicity`. The
    second is "" for a figure of all tasks together."""
    metric, _, task = name.partition(OF_TASK)
    return metric, task


def standard_error_name(name: str) -> str:
    """The name of a figure's standard error: `auroc_standard_error@toxicity` for a task's own."""
    metric, task = split_metric_name(name)
    return f"{metric}{STANDARD_ERROR}{OF_TASK}{task}" if task else metric + STANDARD_ERROR


def metric_entry(name: str) -> Metric:
    """The catalogue's entry of a metric whose name is valid; KeyError for others."""
    metric, _ = split_metric_name(name)
    return USER_METRIC if is_function(metric) else CATALOGUE[metric]


def check_metric(name: object) -> object:
    """Pass the name of a known metric through, or `module:function`. Raises ValueError with the
    nearest known one, or with the reason why it cannot be computed."""
    if not isinstance(name, str):  # pydantic's own check of the type comes after this one
        return name
    metric, task = split_metric_name(name)
    if not is_function(metric) and metric not in CATALOGUE:
        known = ", ".join(known for known, m in CATALOGUE.items() if m.is_computable)
        near = did_you_mean(metric, CATALOGUE)
        raise ValueError(
            f"no metric of that name{near}; known: {known}, and your own as `module:function`"
        )
    entry = metric_entry(name)
    if not entry.is_computable:
        raise ValueError(
            f"{metric} cannot be computed: it compares {entry.modalities} modalities with text "
            "alone, and so far every task reads text alone"
        )
    # `task_skill` is defined over all tasks; size, cost and training are those of the one adapter.
    is_of_all_tasks = metric == "task_skill" or entry.source not in ("predictions", "user")
    if OF_TASK in name and (not task or is_of_all_tasks):
        what = "names no task after the @" if not task else "is one figure for all tasks"
        raise ValueError(f"{name!r}: {what}; `auroc@NAME` is the AUROC of one of data.tasks")
    return name


def default_objectives(task: TaskKind) -> tuple[str, str]:
    """The objectives of a config that names none: skill against size."""
    return "eval_loss" if task == "sft" else "auroc", "trainable_parameters"


def require_offered(task: TaskKind, names: Iterable[str]) -> None:
    """Raise ValueError naming the first of `names` that a task does not have."""
    for name in names:
        if task not in metric_entry(name).tasks:
            offered = ", ".join(
                known for known, m in CATALOGUE.items() if task in m.tasks and m.is_computable
            )
            raise ValueError(f"the task {task!r} has no metric {name!r}; it has {offered}")
