"""Which worker gets which GPU, and how many cores."""

from __future__ import annotations

import os

from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.errors import ConfigError
from coralx.records.run_facts import REVISION, Settings
from coralx.system.containers import cores, memory
from coralx.system.gpus import VARIABLE, Gpu, visible_gpus

MAX_CPU_WORKERS = 4
"""Chosen by itself; the config may ask for more."""

BYTES_PER_CPU_WORKER = 2 << 30
BYTES_PER_CPU_LANGUAGE_MODEL = 4 << 30
"""A small one: 135 M parameters take 3.2 GB in training."""


def pins(config: Config, backend: str) -> tuple[str, ...]:
    """The CUDA_VISIBLE_DEVICES of each worker: one entry a GPU in use.

    Empty where nothing trains, or where NVIDIA's driver names no GPU. Raises ConfigError for a
    number in `runtime.devices` that none of the visible GPUs has.
    """
    if backend == "simulated":
        return ()
    gpus = visible_gpus()
    names = [gpu.uuid for gpu in gpus]
    return _in_use(config, names, [_described(gpu) for gpu in gpus]) if gpus else ()


def late_pins(config: Config, device: str, count: int) -> tuple[str, ...]:
    """The same where only the first worker sees the devices, as with ROCm: `count` GPUs.

    Raises ConfigError where `runtime.devices` names GPUs and there is none to train on.
    """
    if not device.startswith("cuda"):
        return _in_use(config, [], [])
    # Numbers or names: whatever the variable holds is what a worker's own is made of.
    visible = os.environ.get(VARIABLE)
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return _in_use(config, names, names)


def _in_use(config: Config, names: list[str], described: list[str]) -> tuple[str, ...]:
    """Those of the visible GPUs that `runtime.devices` asks for."""
    devices = config.runtime.devices
    if devices == "auto":
        return tuple(names)
    if missing := [str(number) for number in devices if number >= len(names)]:
        visible = ", ".join(f"{place} ({text})" for place, text in enumerate(described))
        raise ConfigError(
            "config",
            [
                f"runtime.devices: no GPU {', '.join(missing)}; "
                + (f"visible are {visible}" if names else "none is visible to torch")
            ],
            "GPUs are numbered from 0 among those that CUDA_VISIBLE_DEVICES leaves visible; `auto` "
            "takes all of them. `coralx doctor` lists them.",
        )
    return tuple(names[number] for number in devices)


def _described(gpu: Gpu) -> str:
    return f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB"


def share_out(config: Config, device: str, gpus: int) -> Settings:
    """Workers and threads, chosen where the config leaves them open; precision is not known yet."""
    runtime, most = config.runtime, gpus
    if device == "cpu":
        causal = config.model.task in CAUSAL
        each = BYTES_PER_CPU_LANGUAGE_MODEL if causal else BYTES_PER_CPU_WORKER
        fitting = memory().free_bytes // each
        most = min(cores(), MAX_CPU_WORKERS, max(1, fitting))
    # No generation has more jobs at a time than genomes.
    useful = max(1, min(most, config.evolution.population_size))
    workers = useful if runtime.workers == "auto" else runtime.workers
    share = max(1, cores() // workers)
    threads = share if runtime.threads_per_worker == "auto" else runtime.threads_per_worker
    return Settings(workers, threads, "", REVISION)
