"""What a run would find at its start, asked before it: the sizes of the config's base, and whether
its genomes can be trained."""

from __future__ import annotations

from dataclasses import replace

from coralx.config.schema import Config
from coralx.execution.base_description import described_base
from coralx.execution.executor import Listener
from coralx.execution.gpu_sharing import memory_of_smallest, workers_on_each
from coralx.execution.local import LocalExecutor
from coralx.execution.placement import gpus_in_use, share_out
from coralx.records.run_facts import DeviceMemory, Facts, Footprint


def footprint_of_base(config: Config) -> Footprint:
    """The footprint of the config's base on this machine's kind of device: as a run would share its
    GPUs, and decide whether gradients are checkpointed.

    Raises ConfigError where the base cannot be found or described, or lacks modules that the search
    space names, and for a GPU in `runtime.devices` that there is not.
    """
    gpus = gpus_in_use(config, config.runtime.backend)
    found: Footprint | None = None

    def describe(memory: DeviceMemory) -> Footprint:
        nonlocal found
        found = described_base(config, memory)
        return found

    on_each = workers_on_each(config, gpus, describe) if gpus else 1
    workers = share_out(config, "cuda", len(gpus), on_each).workers if gpus else 1
    memory = memory_of_smallest(gpus, workers)
    if found is None or found.device_bytes == 0:
        return described_base(config, memory) if found is None else found
    # As many as fit without checkpointing: what was found of one of them holds for each.
    return replace(found, device_bytes=memory.share_bytes, sharing=memory.sharing)


def try_out(config: Config, backend: str, listener: Listener) -> Facts:
    """Load base and data as a run does, and try one batch; the facts that the run would record.

    Raises ConfigError where the config cannot be trained, SetupError and WorkerError where this
    machine does not allow it.
    """
    executor = LocalExecutor(backend)
    try:
        return executor.start(config, None, listener)
    finally:
        executor.close()
