"""How many workers share a GPU, and how much of its memory each may count on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from coralx.backends.device_memory import MOST_UNMEASURED, workers_that_fit
from coralx.config.schema import Config
from coralx.errors import SetupError
from coralx.execution.gpu_findings import remembered
from coralx.execution.placement import share_out
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Footprint, Settings
from coralx.system.containers import cores
from coralx.system.gpus import Gpu

Describe = Callable[[DeviceMemory], Footprint]
"""The footprint of the config's base on a GPU with such a memory."""


def memory_of_smallest(gpus: Sequence[Gpu], workers: int = 1) -> DeviceMemory:
    """The memory of the smallest of the GPUs, as the driver tells it, if so many workers share
    them; workers are spread evenly, so some GPU has the most."""
    if not gpus:
        return NO_MEMORY
    return DeviceMemory(
        total_bytes=min(gpu.memory_bytes for gpu in gpus),
        free_bytes=min(gpu.free_bytes for gpu in gpus),
        sharing=sharing_of(workers, len(gpus)),
    )


def sharing_of(workers: int, gpus: int) -> int:
    """The most workers that one of the GPUs has."""
    return max(1, math.ceil(workers / max(1, gpus)))


def workers_on_each(config: Config, gpus: Sequence[Gpu], describe: Describe) -> int:
    """How many workers each of the GPUs is to have: what `runtime.workers_per_gpu` says, for `auto`
    as many as fit and are of use.

    `describe` is called for `auto` alone, as it takes seconds.
    """
    configured = config.runtime.workers_per_gpu
    if configured != "auto":
        return configured
    # Neighbours change what time is measured, and of an unknown memory nothing can be said.
    measures_time = "latency_ms" in config.named_metrics
    known = memory_of_smallest(gpus)
    if measures_time or not known.free_bytes or any(gpu.is_exclusive for gpu in gpus):
        return 1
    of_use = math.ceil(config.evolution.population_size / len(gpus))
    smallest = min(gpus, key=lambda gpu: gpu.memory_bytes)
    measured = remembered(smallest, config) or MOST_UNMEASURED
    most = min(measured, of_use, max(1, cores() // len(gpus)))
    return min(most, workers_that_fit(config, describe(known), known)) if most > 1 else 1


def planned(
    config: Config,
    recorded: Settings | None,
    device: str,
    count: int,
    gpus: Sequence[Gpu],
    describe: Describe,
) -> Settings:
    """Workers and threads for `count` devices, of which the driver knows the `gpus`.

    Those `recorded` of a run that is resumed stay, but for workers that the config leaves open:
    this machine may have other GPUs than the run began on, or none for so many workers to share.
    """
    if recorded is not None and config.runtime.workers != "auto":
        return recorded
    on_gpu = device not in ("cpu", "none")
    on_each = workers_on_each(config, gpus, describe) if on_gpu else 1
    chosen = share_out(config, device, count, on_each)
    if recorded is None:
        return chosen
    # A CPU's threads decide how sums are rounded and stay, its workers decide nothing.
    workers = chosen.workers if on_gpu else min(recorded.workers, chosen.workers)
    return replace(recorded, workers=workers)


def require_shareable(gpus: Sequence[Gpu], sharing: int) -> None:
    """Raise SetupError where several workers are to share a GPU that admits a single process."""
    exclusive = [gpu.name for gpu in gpus if gpu.is_exclusive]
    if sharing > 1 and exclusive:
        raise SetupError(
            f"{sharing} workers are to share a GPU, but {exclusive[0]} admits one process at a "
            "time (compute mode EXCLUSIVE_PROCESS)",
            "Set runtime.workers: auto with runtime.workers_per_gpu: 1, or have an administrator "
            "run nvidia-smi -c DEFAULT.",
        )
