"""What a GPU's memory decides before anything is trained: whether activations are recomputed, and
how many workers share a GPU. Both by the estimates of `memory_estimate`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coralx.backends.memory_estimate import most_bytes
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.records.run_facts import DeviceMemory, Footprint
from coralx.search.space import space_of
from coralx.text import gib

CONTEXT_BYTES = 640 << 20
"""What a process takes of a GPU before it holds a tensor: CUDA's context and its kernels."""

USABLE = 0.85
"""The share of what is free that an estimate may fill: it leaves out what the backward pass holds
for a moment, and memory lost to fragmentation."""

MOST_UNMEASURED = 4
"""Workers on one GPU where nobody has measured how many pay: `coralx doctor --gpu-check` tries no
more."""


@dataclass(frozen=True)
class Checkpointing:
    """Whether activations are recomputed in the backward pass instead of being held, and why."""

    is_on: bool
    reason: str
    """In words; empty where no GPU's memory decided it."""

    @property
    def line(self) -> str:
        return f"gradient checkpointing {'on' if self.is_on else 'off'}: {self.reason}"


def checkpointing_by_need(
    config: Config, footprint: Footprint, memory: DeviceMemory, *, on_gpu: bool
) -> Checkpointing:
    """Whether the run checkpoints: as `runtime.gradient_checkpointing` says, or for `auto` where
    the largest genome of the search space would not fit without.

    Decided once for a run: kernels are patched for a whole process, and figures of speed and memory
    stay comparable. `footprint` is of the base alone, of a `memory` before it was loaded. Of an
    unknown memory it fears the worst, if the base is a language model.
    """
    setting = config.runtime.gradient_checkpointing
    if setting != "auto":
        return Checkpointing(setting, "as configured" if on_gpu else "")
    if not on_gpu:
        return Checkpointing(False, "")
    free = memory.free_share_bytes
    if not free:
        is_on = config.model.task in CAUSAL
        return Checkpointing(is_on, "how much memory is free is not known")
    needed = bytes_of_worker(config, replace(footprint, checkpointing=False))
    share = f" for each of {memory.sharing} workers" if memory.sharing > 1 else ""
    fits = needed <= USABLE * free
    takes = "takes" if fits else "would take"
    return Checkpointing(
        not fits,
        f"the largest genome {takes} {gib(needed)} without it, by estimate, and {gib(free)} are "
        f"free{share}",
    )


def bytes_of_worker(config: Config, footprint: Footprint) -> int:
    """What a worker takes of a GPU by estimate while it trains the genome of the search space that
    takes most."""
    return CONTEXT_BYTES + most_bytes(space_of(config), footprint, config.model.max_length)


def workers_that_fit(config: Config, footprint: Footprint, memory: DeviceMemory) -> int:
    """How many workers one GPU holds at a time, each with the largest genome of the search space
    and, unless the config asks for it, without checkpointing; at least 1."""
    configured = config.runtime.gradient_checkpointing is True
    each = bytes_of_worker(config, replace(footprint, checkpointing=configured))
    return max(1, int(USABLE * memory.free_bytes) // each)
