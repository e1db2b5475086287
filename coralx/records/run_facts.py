"""What a run finds out at its start, about machine, base model and data, and what it settles on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from coralx.text import brief

REVISION = 2
"""Raised where the same config and seed no longer lead to the same order of rows or to the same
decisions. A run is led to its end by the revision that it began with."""


@dataclass(frozen=True)
class Settings:
    """What a run settles on at its start; recorded, and reused on resume. `revision`: by which
    order of rows and which rules of decision (1: by those before revisions were recorded)."""

    workers: int
    threads_per_worker: int
    precision: str
    revision: int = 1


Scale = Literal["linear", "log", "loss", "perplexity", "any"]
"""How a metric's figures are spread between the ends of its axis; see `search.hypervolume_box`."""


@dataclass(frozen=True)
class Axis:
    """One objective of the box in which a run's hypervolume is measured: the least and the greatest
    figure, in the metric's own unit (None: there is none)."""

    metric: str
    direction: Literal["maximize", "minimize"]
    scale: Scale
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Footprint:
    """What decides how much memory training an adapter takes; see `backends.memory_estimate`.

    `linear`: the layers that LoRA can adapt, each with its full name, inputs and outputs.
    `head_parameters` are trained whole. `logits_per_token`: how many are held for each token that
    is read. `activation_bytes`: of one value. `device_bytes`: the device's memory; 0 on a CPU.
    """

    base_parameters: int
    base_bytes: int
    hidden_size: int
    intermediate_size: int
    layers: int
    linear: tuple[tuple[str, int, int], ...]
    head_parameters: int = 0
    logits_per_token: int = 0
    activation_bytes: int = 4
    checkpointing: bool = False
    device_bytes: int = 0


@dataclass(frozen=True)
class Classes:
    """The classes of a task, named as in `data.tasks` ("" without named ones), in the order of its
    logits (label-tokens: of its scores), the negative class first. `rows` counts the rows of each
    class, in the same order, in each split."""

    task: str
    labels: tuple[str, ...]
    rows: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Facts:
    """What only a worker can know: device, base model, the rows of each split and their `classes`
    (none for sft, in simulations, and in runs of versions that did not record them).

    `base_fingerprint` changes with the settings (before the dash) and the weights (behind it) of
    the base, wherever it lies; `data_fingerprint` with the encoded examples and their order;
    `functions` with the files of the user's own metrics and judges (empty without any).
    `trains_head`: whether a classifier's head is trained beside every adapter (False in
    simulations, and in runs of versions that did not record it).
    Earlier versions recorded `fingerprint` instead: the base's parameters, a dash, and the data's.
    """

    backend: str
    backend_reason: str
    device: str
    device_count: int
    precision: str
    precision_reason: str
    base_parameters: int
    rows: Mapping[str, int]
    fingerprint: str = ""
    functions: str = ""
    warnings: tuple[str, ...] = ()
    footprint: Footprint | None = None
    base_fingerprint: str = ""
    data_fingerprint: str = ""
    classes: tuple[Classes, ...] = ()
    trains_head: bool = False

    def steps_per_epoch(self, batch_size: int) -> int:
        """Optimizer steps that one pass over the training rows takes; the last may be short."""
        return math.ceil(self.rows["train"] / batch_size)

    def classes_unlike(self, then: Facts) -> str:
        """Which class is another than it was then, in words; empty where all are the same."""
        named = [[(c.task, label) for c in f.classes for label in c.labels] for f in (then, self)]
        for was, now in zip_longest(*named):
            if was != now:
                return f"{_class(was)} became {_class(now)}"
        return ""


def _class(found: tuple[str, str] | None) -> str:
    if found is None:
        return "none"
    task, label = found
    return brief(label) + (f" of {task}" if task else "")
