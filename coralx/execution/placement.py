"""Which worker gets which GPU, and how many cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.errors import ConfigError
from coralx.records.run_facts import REVISION, Settings
from coralx.system.containers import cores, memory
from coralx.system.cuda_probe import obstacle_to_gpu, unusable
from coralx.system.environment import torch_cuda
from coralx.system.gpus import HIP_VARIABLE, VARIABLE, Gpu, driver_version, visible_gpus

MAX_CPU_WORKERS = 4
"""Chosen by itself; the config may ask for more."""

BYTES_PER_CPU_WORKER = 2 << 30
BYTES_PER_CPU_LANGUAGE_MODEL = 4 << 30
"""A small one: 135 M parameters take 3.2 GB in training."""


def gpus_in_use(config: Config, backend: str) -> tuple[Gpu, ...]:
    """The GPUs that train, as NVIDIA's driver names them; worker after worker is pinned to the next
    one.

    Empty where nothing trains, or where the driver names none. Raises ConfigError for a number in
    `runtime.devices` that none of the visible GPUs has.
    """
    gpus = visible_gpus() if backend != "simulated" else ()
    return _chosen(config, gpus, [_described(gpu) for gpu in gpus]) if gpus else ()


def pins(config: Config, backend: str) -> tuple[str, ...]:
    """The CUDA_VISIBLE_DEVICES of each worker: one entry a GPU in use."""
    return tuple(gpu.uuid for gpu in gpus_in_use(config, backend))


def late_pins(config: Config, device: str, count: int) -> tuple[str, ...]:
    """The same where only the first worker sees the devices, as with ROCm: `count` GPUs. They are
    for the variable `pin_variable`.

    Raises ConfigError where `runtime.devices` names GPUs and there is none to train on, SetupError
    where NVIDIA's driver shows GPUs that torch was built for and cannot use.
    """
    if not device.startswith("cuda"):
        require_opened(device)
        return _chosen(config, (), ())
    # Numbers or names: whatever the variable holds is what a worker's own is made of.
    visible = os.environ.get(pin_variable())
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return _chosen(config, names, names)


def pin_variable() -> str:
    """The variable that says which GPUs a process sees. HIP looks at CUDA's only where its own is
    not set."""
    return HIP_VARIABLE if not visible_gpus() and HIP_VARIABLE in os.environ else VARIABLE


def require_opened(device: str) -> None:
    """Raise SetupError where a worker would train on the CPU though there are GPUs, and torch is
    built for them: nobody wants that silently. GPUs that CUDA_VISIBLE_DEVICES hides are hidden on
    purpose."""
    if device == "cpu" and torch_cuda() is not None and (gpus := visible_gpus()):
        raise unusable(gpus, obstacle_to_gpu())


def idle_gpu_warning(device: str) -> tuple[str, ...]:
    """A warning where GPUs stay unused: because torch is built without CUDA, or because the driver
    shows none to compute on, though nobody has hidden them."""
    if device != "cpu":
        return ()
    if (gpus := visible_gpus()) and torch_cuda() is None:
        return (f"torch is a CPU build: training on the CPU, and {gpus[0].name} stays unused",)
    if not gpus and VARIABLE not in os.environ and (driver := driver_version()):
        return (
            f"NVIDIA's driver {driver} shows no GPU to compute on: training on the CPU. "
            "`coralx doctor` says what may be the cause",
        )
    return ()


Named = TypeVar("Named", Gpu, str)


def _chosen(
    config: Config, visible: Sequence[Named], described: Sequence[str]
) -> tuple[Named, ...]:
    """Those of the visible GPUs that `runtime.devices` asks for."""
    devices, names = config.runtime.devices, list(visible)
    if devices == "auto":
        return tuple(names)
    if missing := [str(number) for number in devices if number >= len(names)]:
        listed = ", ".join(f"{place} ({text})" for place, text in enumerate(described))
        raise ConfigError(
            "config",
            [
                f"runtime.devices: no GPU {', '.join(missing)}; "
                + (f"visible are {listed}" if names else "none is visible to torch")
            ],
            "GPUs are numbered from 0 among those that CUDA_VISIBLE_DEVICES leaves visible; `auto` "
            "takes all of them. `coralx doctor` lists them.",
        )
    return tuple(names[number] for number in devices)


def _described(gpu: Gpu) -> str:
    return f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB"


def share_out(config: Config, device: str, gpus: int, on_each: int = 1) -> Settings:
    """Workers and threads, chosen where the config leaves them open, with so many workers
    `on_each` of the GPUs; precision is not known yet."""
    runtime, most = config.runtime, gpus * on_each
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
