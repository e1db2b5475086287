"""What this machine can do, and whether that suffices for a config: one batch is tried."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coralx.backends.choice import Choice, choose, settled
from coralx.config import Config
from coralx.config.input_files import missing_inputs
from coralx.config.metric_catalogue import EVERY_TASK
from coralx.doctor.requirements import Requirements, requirements_of
from coralx.engine.budget import without_effect
from coralx.errors import ConfigError, CoralXError, SetupError
from coralx.execution.executor import Listener, Signal
from coralx.execution.inspection import inspect, try_out
from coralx.execution.placement import pins
from coralx.system.containers import Limits, cores, limits_of, memory
from coralx.system.environment import (
    INSTALL_UNSLOTH,
    Mismatch,
    hardware,
    installed_version,
    is_installed,
    out_of_bounds,
    torch_cuda,
)
from coralx.system.gpus import VARIABLE, Gpu, driver_version, visible_gpus
from coralx.text import gib


@dataclass(frozen=True)
class Machine:
    """What is here, and in `limits` what a container leaves of it: cores and free memory are within
    them. `visible_devices` is CUDA_VISIBLE_DEVICES, None if it is not set; `unsloth_runs` says
    which of its ways Unsloth would take."""

    hardware: dict[str, str | int]
    usable_cores: int
    free_memory_bytes: int
    driver: str | None
    gpus: tuple[Gpu, ...]
    visible_devices: str | None
    torch: str | None
    torch_cuda: str | None
    unsloth: str | None
    unsloth_runs: str | None
    mismatches: tuple[Mismatch, ...]
    free_disk_bytes: int
    limits: Limits

    @property
    def has_usable_gpu(self) -> bool:
        """Whether torch could train on a GPU."""
        return bool(self.gpus) and self.torch_cuda is not None


@dataclass(frozen=True)
class Problem:
    """What stands in the way, and the way out."""

    problem: str
    way_out: str


Trial = Literal["not tried", "trained", "refused", "failed"]


@dataclass(frozen=True)
class Diagnosis:
    """`backends` says for each task (with a config: for its own) what would train, and why.

    `trial` is what became of one batch with the smallest and the largest genome: `refused` where
    the config is at fault, or its base or data are not there, `failed` where the machine is.
    `warnings` are what a run of the config would warn of.
    """

    machine: Machine
    backends: dict[str, Choice]
    requirements: Requirements | None
    problems: tuple[Problem, ...]
    trial: Trial = "not tried"
    warnings: tuple[str, ...] = ()


def _unheard(signal: Signal) -> None:
    """Nobody is told what goes on."""


def diagnose(config: Config | None = None, listener: Listener = _unheard) -> Diagnosis:
    """Look at the machine, and with a config at what it needs; where nothing is found to stand in
    the way, load base and data and try one batch.

    Raises ConfigError where backend and task contradict each other.
    """
    machine = examine()
    problems = list(_problems(machine))
    if config is None:
        backends = {str(task): choose(_of_task(task)) for task in EVERY_TASK}
        return Diagnosis(machine, backends, None, tuple(problems))
    try:
        choice = choose(config)
    except SetupError as error:
        problems.append(Problem(error.message, error.hint))
        choice = Choice(config.runtime.backend, "named by the config, but not installed")
    if not machine.has_usable_gpu:
        effectless = without_effect(config.budget, "cpu")
        problems += [Problem(warning, "Set budget.max_minutes.") for warning in effectless]
    trial: Trial = "not tried"
    requirements = None
    obstacles = [*_obstacles(config, machine)]
    problems += obstacles
    if config.model.base is not None and choice.name != "simulated":
        if missing_inputs(config):
            trial = "refused"
        try:
            requirements = _required(settled(config, choice.name), choice.name, machine)
        except ConfigError as error:
            trial = "refused"
            problems += [Problem(problem, error.hint) for problem in error.problems]
    warnings: tuple[str, ...] = ()
    if requirements is not None:
        problems += _shortages(requirements, machine)
        if not obstacles and requirements.smallest.verdict in ("fits", "unknown"):
            trial, found, warnings = _tried(settled(config, choice.name), choice.name, listener)
            problems += found
    return Diagnosis(
        machine, {config.model.task: choice}, requirements, tuple(problems), trial, warnings
    )


def _tried(
    config: Config, backend: str, listener: Listener
) -> tuple[Trial, list[Problem], tuple[str, ...]]:
    """What became of one batch, the problems that it met, and what a run would warn of."""
    try:
        facts = try_out(config, backend, listener)
    except ConfigError as error:
        return "refused", [Problem(problem, error.hint) for problem in error.problems], ()
    except CoralXError as error:
        return "failed", [Problem(error.message, error.hint)], ()
    return "trained", [], facts.warnings


def examine() -> Machine:
    """This machine, as it is now."""
    gpus, cuda, unsloth = visible_gpus(), torch_cuda(), installed_version("unsloth")
    fused = "fused kernels on the GPU"
    limits = limits_of()
    own_cpu_backend = "its CPU backend: transformers and PEFT without fused kernels"
    return Machine(
        hardware=hardware(),
        usable_cores=cores(limits),
        free_memory_bytes=memory(limits).free_bytes,
        driver=driver_version(),
        gpus=gpus,
        visible_devices=os.environ.get(VARIABLE),
        torch=installed_version("torch"),
        torch_cuda=cuda,
        unsloth=unsloth,
        unsloth_runs=(fused if gpus and cuda else own_cpu_backend) if unsloth else None,
        mismatches=out_of_bounds(),
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        limits=limits,
    )


def _of_task(task: str) -> Config:
    config = Config()
    return config.model_copy(update={"model": config.model.model_copy(update={"task": task})})


def _required(config: Config, backend: str, machine: Machine) -> Requirements:
    """What the config needs, against the smallest of the GPUs that it would use, or against the
    memory that is free where it would train on the CPU."""
    chosen = set(pins(config, backend))
    capacity = machine.free_memory_bytes
    if machine.has_usable_gpu:
        capacity = min(gpu.memory_bytes for gpu in machine.gpus if gpu.uuid in chosen)
    runtime = config.runtime.model_copy(update={"backend": backend})
    footprint = inspect(config.model_copy(update={"runtime": runtime}))
    return requirements_of(config, footprint, capacity)


# -- problems --------------------------------------------------------------------------------------


def _problems(machine: Machine) -> Iterator[Problem]:
    """What keeps the machine below what it could do, whatever is trained."""
    if machine.torch is None:
        yield Problem("torch is not installed", "pip install coralx")
    if machine.gpus and machine.torch is not None and machine.torch_cuda is None:
        yield Problem(
            f"torch {machine.torch} is a CPU build: the GPU stays unused",
            "Install a CUDA build of torch, as https://pytorch.org/get-started shows.",
        )
    if machine.has_usable_gpu and machine.unsloth is None:
        yield Problem(
            "unsloth is not installed: language models train with PEFT, more slowly",
            INSTALL_UNSLOTH,
        )
    if machine.driver and not machine.gpus and machine.visible_devices is not None:
        yield Problem(
            f"{VARIABLE}={machine.visible_devices!r} hides every GPU", f"Unset {VARIABLE}."
        )
    for found in machine.mismatches:
        state = f"is {found.found}" if found.found else "is not installed"
        yield Problem(
            f"{found.package} {state}; tested is {found.bounds or 'any version'}",
            f"pip install '{found.package}{found.bounds}'",
        )


def _obstacles(config: Config, machine: Machine) -> Iterator[Problem]:
    """What keeps the config from being trained here."""
    for missing in missing_inputs(config):
        yield Problem(missing, "Paths are looked up from here, then from the config's folder.")
    if config.runtime.devices != "auto" and not machine.has_usable_gpu:
        yield Problem(
            f"runtime.devices: {list(config.runtime.devices)} names GPUs, and torch can use none",
            "Set runtime.devices: auto.",
        )
    if config.runtime.quantization != "none" and not machine.has_usable_gpu:
        yield Problem(
            f"runtime.quantization: {config.runtime.quantization} needs a CUDA GPU, none can be "
            "used here",
            "Set runtime.quantization: none.",
        )
    elif config.runtime.quantization != "none" and not is_installed("bitsandbytes"):
        yield Problem(
            "runtime.quantization needs bitsandbytes, which is not installed",
            "pip install bitsandbytes",
        )


def _shortages(requirements: Requirements, machine: Machine) -> Iterator[Problem]:
    """What of memory and disk the config's genomes need and the machine has not."""
    room = gib(requirements.capacity_bytes)
    for size, need in (("smallest", requirements.smallest), ("largest", requirements.largest)):
        if need.verdict in ("does not fit", "may run out of memory"):
            yield Problem(
                f"the {size} genome {need.verdict}: it takes at least {gib(need.least_bytes)}, "
                f"likely {gib(need.likely_bytes)}, and there are {room}",
                "Smaller ranks, batch_size or model.max_length, fewer target_modules, "
                "runtime.gradient_checkpointing, or runtime.quantization: 4bit need less.",
            )
    if requirements.disk_bytes > machine.free_disk_bytes:
        yield Problem(
            f"checkpoints may take {gib(requirements.disk_bytes)}, and "
            f"{gib(machine.free_disk_bytes)} are free in {Path.cwd()}",
            "Free some, or set runtime.keep_checkpoints: needed.",
        )
