"""What a run finds out at its start about machine, base model and data, and what it chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

from coralx.text import brief

REVISION = 4
"""Raised whenever the same config and seed no longer lead to the same order of rows or to the same
decisions. A run keeps the revision that it began with to its end."""


@dataclass(frozen=True)
class Settings:
    """What a run chooses at its start; recorded, and reused on resume."""

    workers: int
    threads_per_worker: int
    precision: str
    revision: int = 1
    """The `REVISION` by which rows are ordered and decisions are made; 1 in runs of versions that
    did not record it."""
    checkpointing: bool | None = None
    """Whether gradient checkpointing is on, where a GPU's memory decided it; None: nothing did, or
    not yet."""
    pack: int = 1
    """How many genomes at most a worker trains together."""


@dataclass(frozen=True)
class DeviceMemory:
    """A GPU's memory, and how many workers share it. Bytes are 0 where they are not known."""

    total_bytes: int = 0
    free_bytes: int = 0
    """Before a worker of this run has loaded anything."""
    sharing: int = 1

    def at_most(self, other: DeviceMemory) -> DeviceMemory:
        """This memory, shared as it is, but no more of it than the other has."""
        total = min(filter(None, (self.total_bytes, other.total_bytes)), default=0)
        free = min(filter(None, (self.free_bytes, other.free_bytes)), default=0)
        return DeviceMemory(total, free, self.sharing)

    @property
    def share_bytes(self) -> int:
        """What one worker may hold."""
        return self.total_bytes // self.sharing

    @property
    def free_share_bytes(self) -> int:
        """What is free for one worker."""
        return self.free_bytes // self.sharing


NO_MEMORY = DeviceMemory()
"""Of a device whose memory is not known."""


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
    """What decides how much memory training an adapter takes; see `backends.memory_estimate`."""

    base_parameters: int
    base_bytes: int
    hidden_size: int
    intermediate_size: int
    layers: int
    linear: tuple[tuple[str, int, int], ...]
    """The layers that LoRA can adapt: full name, inputs, outputs."""
    head_parameters: int = 0
    """Parameters of a classification head, all of which are trained."""
    logits_per_token: int = 0
    """How many logits are held for each token that is read."""
    activation_bytes: int = 4
    """Of one value of an activation."""
    checkpointing: bool = False
    """Whether gradient checkpointing is on."""
    device_bytes: int = 0
    """What a worker may use of the device's memory; 0 on a CPU."""
    sharing: int = 1
    """How many workers share the device."""
    fused: bool = False
    """Whether the base runs on Unsloth's kernels, which hold fewer activations."""


@dataclass(frozen=True)
class Classes:
    """The classes of one task of a run."""

    task: str
    """Its name in `data.tasks`; "" without named tasks."""
    labels: tuple[str, ...]
    """In the order of the logits (label-tokens: of the scores), the negative class first."""
    rows: Mapping[str, tuple[int, ...]]
    """By split: the number of rows of each class, in the order of `labels`."""


@dataclass(frozen=True)
class Facts:
    """What only a worker can know: about the device, the base model and the rows."""

    backend: str
    backend_reason: str
    device: str
    device_count: int
    precision: str
    precision_reason: str
    base_parameters: int
    rows: Mapping[str, int]
    """By split."""
    fingerprint: str = ""
    """Of earlier versions, in place of the two below: the base's parameters, a dash, the data's."""
    functions: str = ""
    """Changes with the files of the user's own metrics and judges; empty without any."""
    warnings: tuple[str, ...] = ()
    footprint: Footprint | None = None
    base_fingerprint: str = ""
    """Changes with the settings (before the dash) and the weights (behind it) of the base, but not
    with the folder that holds it."""
    data_fingerprint: str = ""
    """Changes with the encoded examples and their order."""
    classes: tuple[Classes, ...] = ()
    """Empty for sft, in simulations, and in runs of versions that did not record them."""
    trains_head: bool = False
    """Whether a classifier's head is trained with every adapter; False in simulations, and in runs
    of versions that did not record it."""
    checkpointing_reason: str = ""
    """Why gradient checkpointing is on or off; empty where no GPU's memory decided it."""
    pack: int | None = None
    """How many genomes at most are to be trained together; None: nothing was to be decided."""
    pack_reason: str = ""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Optimizer steps that one pass over the training rows takes; the last may be short."""
        return math.ceil(self.rows["train"] / batch_size)

    def changed_class(self, then: Facts) -> str:
        """The first class that differs from the one `then`, in words; empty where none does."""
        for was, now in zip_longest(then._tasks_and_labels, self._tasks_and_labels):
            if was != now:
                return f"{_class_name(was)} became {_class_name(now)}"
        return ""

    @property
    def _tasks_and_labels(self) -> list[tuple[str, str]]:
        return [(c.task, label) for c in self.classes for label in c.labels]


def decided(settings: Settings, facts: Facts) -> Settings:
    """The settings, with what the first worker has decided: precision, and on a GPU whether
    gradients are checkpointed; and how many genomes are trained together, where that was open."""
    checkpointing = None
    if facts.device.startswith("cuda") and facts.footprint is not None:
        checkpointing = facts.footprint.checkpointing
    pack = settings.pack if facts.pack is None else facts.pack
    return replace(settings, precision=facts.precision, checkpointing=checkpointing, pack=pack)


def _class_name(task_and_label: tuple[str, str] | None) -> str:
    if task_and_label is None:  # there were fewer classes
        return "none"
    task, label = task_and_label
    return brief(label) + (f" of {task}" if task else "")
