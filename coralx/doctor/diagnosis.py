"""What this machine can do, and whether a config can be trained on it: one batch is tried."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coralx.backends.choice import ON_GPU, Choice, choose, with_backend_defaults
from coralx.config import Config
from coralx.config.input_files import missing_inputs
from coralx.config.metric_catalogue import EVERY_TASK
from coralx.doctor.requirements import Requirements, requirements_of
from coralx.engine.budget import budget_warnings
from coralx.errors import ConfigError, CoralXError, SetupError
from coralx.execution.executor import Listener, StatusUpdate
from coralx.execution.placement import pins
from coralx.execution.preflight import footprint_of_base, try_out
from coralx.system.containers import Limits, cores, limits_of, memory
from coralx.system.cuda_probe import obstacle_to_gpu, unusable
from coralx.system.environment import (
    INSTALL_QUANTIZATION,
    INSTALL_UNSLOTH,
    Mismatch,
    hardware,
    installed_version,
    is_installed,
    torch_cuda,
    version_mismatches,
)
from coralx.system.gpus import VARIABLE, Gpu, driver_version, visible_gpus
from coralx.text import gib


@dataclass(frozen=True)
class Machine:
    """This machine: hardware, packages, and what a container leaves of it."""

    hardware: dict[str, str | int]
    usable_cores: int
    """Within the container's limits."""
    free_memory_bytes: int
    """Within the container's limits."""
    driver: str | None
    """The version of the NVIDIA driver; None without one."""
    gpus: tuple[Gpu, ...]
    """Those that are visible, whether or not torch can use them."""
    visible_devices: str | None
    """CUDA_VISIBLE_DEVICES; None if it is not set."""
    torch: str | None
    """Its version; None if it is not installed. So is `unsloth`."""
    torch_cuda: str | None
    """The CUDA version that torch is built for; None for a CPU build."""
    gpu_obstacle: str | None
    """Why such a torch cannot open the first GPU, in its own words; None if it can, or was not
    asked."""
    unsloth: str | None
    unsloth_runs: str | None
    """How Unsloth would train here: with fused kernels, or by its CPU backend."""
    mismatches: tuple[Mismatch, ...]
    """Packages whose versions are not those that were tested."""
    free_disk_bytes: int
    """On the file system of the working folder."""
    limits: Limits
    """What a container allows."""

    @property
    def has_usable_gpu(self) -> bool:
        """Whether torch could train on a GPU."""
        return bool(self.gpus) and self.torch_cuda is not None and self.gpu_obstacle is None


@dataclass(frozen=True)
class Problem:
    """What is wrong with machine or config, and what to do."""

    problem: str
    way_out: str


Trial = Literal["not tried", "trained", "refused", "failed"]


@dataclass(frozen=True)
class Diagnosis:
    """What `coralx doctor` shows of the machine and, if there is one, of the config."""

    machine: Machine
    backends: dict[str, Choice]
    """For each task (with a config: for its own) what would train, and why."""
    requirements: Requirements | None
    """What the config needs; None without a config, and where nothing would be trained."""
    problems: tuple[Problem, ...]
    trial: Trial = "not tried"
    """What became of one batch with the smallest and the largest genome: `refused` where the config
    is at fault, or its base or data are missing, `failed` where the machine is at fault."""
    warnings: tuple[str, ...] = ()
    """What a run of the config would warn of."""


def _ignore(signal: StatusUpdate) -> None:
    """Drop what workers report."""


def diagnose(
    config: Config | None = None, listener: Listener = _ignore, *, try_batch: bool = True
) -> Diagnosis:
    """Look at the machine, and with a config at what it needs; unless a problem rules it out, load
    base and data and `try_batch`.

    Raises ConfigError where backend and task contradict each other.
    """
    machine = examine_machine()
    problems = list(_problems(machine))
    if config is not None:
        return _diagnose_config(config, machine, problems, listener, try_batch=try_batch)
    backends = {str(task): _chosen(_of_task(task), machine) for task in EVERY_TASK}
    return Diagnosis(machine, backends, None, tuple(problems))


def _diagnose_config(
    config: Config,
    machine: Machine,
    problems: list[Problem],
    listener: Listener,
    *,
    try_batch: bool,
) -> Diagnosis:
    """The diagnosis of machine and config; `problems` are those of the machine."""
    try:
        choice = _chosen(config, machine)
    except SetupError as error:  # what else is wrong is worth showing all the same
        problems.append(Problem(error.message, error.hint))
        choice = Choice(config.runtime.backend, "named by the config, but not installed")
    if not machine.has_usable_gpu:
        effectless = budget_warnings(config.budget, "cpu")
        problems += [Problem(warning, "Set budget.max_minutes.") for warning in effectless]
    trial: Trial = "not tried"
    requirements = None
    obstacles = list(_obstacles(config, machine))
    problems += obstacles
    if config.model.base is not None and choice.name != "simulated":
        if missing_inputs(config):
            trial = "refused"
        elif _lacks_bitsandbytes(config):
            trial = "failed"
        try:
            requirements = _required(
                with_backend_defaults(config, choice.name), choice.name, machine
            )
        except ConfigError as error:
            trial = "refused"
            known = {problem.problem for problem in problems}  # a missing base is seen twice
            problems += [Problem(p, error.hint) for p in error.problems if p not in known]
    warnings: tuple[str, ...] = ()
    if requirements is not None:
        problems += _shortages(requirements, machine)
        # a trial that may exhaust the memory could take other programs down with it
        may_fit = requirements.smallest.verdict in ("fits", "unknown")
        if try_batch and may_fit and not obstacles:
            trial, failures, warnings = _try_batch(config, choice.name, listener)
            problems += [failure for failure in failures if failure not in problems]
    return Diagnosis(
        machine, {config.model.task: choice}, requirements, tuple(problems), trial, warnings
    )


def _try_batch(
    config: Config, backend: str, listener: Listener
) -> tuple[Trial, list[Problem], tuple[str, ...]]:
    """What became of one batch, the problems that it met, and what a run would warn of."""
    try:
        facts = try_out(with_backend_defaults(config, backend), backend, listener)
    except ConfigError as error:
        return "refused", [Problem(problem, error.hint) for problem in error.problems], ()
    except CoralXError as error:
        return "failed", [Problem(error.message, error.hint)], ()
    return "trained", [], facts.warnings


def examine_machine() -> Machine:
    """This machine, as it is now."""
    gpus, cuda, unsloth = visible_gpus(), torch_cuda(), installed_version("unsloth")
    obstacle = obstacle_to_gpu() if gpus and cuda else None
    limits = limits_of()
    return Machine(
        hardware=hardware(),
        usable_cores=cores(limits),
        free_memory_bytes=memory(limits).free_bytes,
        driver=driver_version(),
        gpus=gpus,
        visible_devices=os.environ.get(VARIABLE),
        torch=installed_version("torch"),
        torch_cuda=cuda,
        gpu_obstacle=obstacle,
        unsloth=unsloth,
        unsloth_runs=_how_unsloth_runs(gpus, cuda, obstacle) if unsloth else None,
        mismatches=version_mismatches(),
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        limits=limits,
    )


def _how_unsloth_runs(gpus: Sequence[Gpu], cuda: str | None, obstacle: str | None) -> str:
    if gpus and cuda and obstacle is None:
        return "fused kernels on the GPU"
    return "its CPU backend: transformers and PEFT without fused kernels"


def _chosen(config: Config, machine: Machine) -> Choice:
    """What would train; a GPU that torch cannot open is named as such. Raises as `choose`."""
    choice = choose(config)
    if machine.gpu_obstacle is None or choice.reason != ON_GPU:
        return choice
    return Choice(choice.name, "a GPU is visible, but torch cannot use it")


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
    footprint = footprint_of_base(config.model_copy(update={"runtime": runtime}))
    return requirements_of(config, footprint, capacity // footprint.sharing)


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
    if machine.gpu_obstacle is not None:
        error = unusable(machine.gpus, machine.gpu_obstacle)
        yield Problem(error.message, error.hint)
    if machine.has_usable_gpu and machine.unsloth is None:
        yield Problem(
            "unsloth is not installed: language models train with PEFT, more slowly",
            INSTALL_UNSLOTH,
        )
    if machine.driver and not machine.gpus and machine.visible_devices is not None:
        yield Problem(
            f"{VARIABLE}={machine.visible_devices!r} hides every GPU", f"Unset {VARIABLE}."
        )
    if machine.driver and not machine.gpus and machine.visible_devices is None:
        yield Problem(
            f"NVIDIA's driver {machine.driver} shows no GPU to compute on",
            "If nvidia-smi lists one in MIG mode, slices have to be made of it first: "
            "nvidia-smi mig -cgi PROFILE -C.",
        )
    for mismatch in machine.mismatches:
        state = f"is {mismatch.found}" if mismatch.found else "is not installed"
        yield Problem(
            f"{mismatch.package} {state}; tested versions: {mismatch.bounds or 'any'}",
            f"pip install '{mismatch.package}{mismatch.bounds}'",
        )


def _obstacles(config: Config, machine: Machine) -> Iterator[Problem]:
    """What keeps the config from being trained here."""
    for missing in missing_inputs(config):
        yield Problem(
            missing, "Paths are looked up in the working folder, then in the config's folder."
        )
    if config.runtime.devices != "auto" and not machine.has_usable_gpu:
        yield Problem(
            f"runtime.devices: {list(config.runtime.devices)} names GPUs, but torch can use none",
            "Set runtime.devices: auto.",
        )
    if _lacks_bitsandbytes(config):
        yield Problem(
            f"runtime.quantization: {config.runtime.quantization} needs bitsandbytes, which is not "
            "installed",
            f"{INSTALL_QUANTIZATION}.",
        )


def _lacks_bitsandbytes(config: Config) -> bool:
    return config.runtime.quantization != "none" and not is_installed("bitsandbytes")


def _shortages(requirements: Requirements, machine: Machine) -> Iterator[Problem]:
    """Where the config's genomes need more memory or disk than the machine has."""
    available = gib(requirements.capacity_bytes)
    for size, need in (("smallest", requirements.smallest), ("largest", requirements.largest)):
        if need.verdict in ("does not fit", "may run out of memory"):
            yield Problem(
                f"the {size} genome {need.verdict}: it needs at least {gib(need.least_bytes)}, "
                f"probably {gib(need.likely_bytes)}, of the {available} available",
                "Use less memory: smaller ranks, batch_size or model.max_length, fewer "
                "target_modules, runtime.gradient_checkpointing, or runtime.quantization: 4bit.",
            )
    pools = requirements.host_bytes * requirements.sharing
    if pools > machine.free_memory_bytes:
        yield Problem(
            f"Unsloth keeps up to {gib(pools)} of activations in the machine's memory, of which "
            f"{gib(machine.free_memory_bytes)} are free",
            "Set runtime.gradient_checkpointing: false if the GPU has room, or use a smaller "
            "batch_size, a shorter model.max_length or fewer workers.",
        )
    if requirements.disk_bytes > machine.free_disk_bytes:
        yield Problem(
            f"checkpoints may take {gib(requirements.disk_bytes)}, but only "
            f"{gib(machine.free_disk_bytes)} are free in {Path.cwd()}",
            "Free disk space, or set runtime.keep_checkpoints: needed.",
        )
