"""The device that a worker trains on: which one, whether this torch computes on it, its memory."""

from __future__ import annotations

import torch

from coralx.backends.device_memory import CONTEXT_BYTES
from coralx.errors import SetupError
from coralx.records.run_facts import DeviceMemory
from coralx.system.cuda_probe import suitable_torch
from coralx.system.gpus import visible_gpus


def training_device() -> torch.device:
    """The first GPU that torch sees, or else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def require_kernels(device: torch.device) -> None:
    """Raise SetupError for a GPU that this build of torch has no kernels for: it would fail at the
    first operation, and name neither."""
    if device.type != "cuda" or torch.version.cuda is None:  # ROCm's names are others
        return
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    if not built or any(_runs_on(name, major, minor) for name in built):
        return
    raise SetupError(
        f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)} "
        f"(compute capability {major}.{minor}; it is built for {', '.join(built)})",
        f'{suitable_torch(visible_gpus())}; to train on the CPU, set CUDA_VISIBLE_DEVICES="".',
    )


def _runs_on(architecture: str, major: int, minor: int) -> bool:
    """Whether code for `sm_86` or `compute_90` runs on a GPU of that compute capability: binaries
    within their major version, what is compiled at load time on every later one too."""
    kind, _, number = architecture.partition("_")
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")  # sm_90a
    if not digits.isdecimal():
        return False
    built = divmod(int(digits), 10)
    if kind == "compute":
        return built <= (major, minor)
    return built[0] == major and built[1] <= minor


def keep_to_share(device: torch.device, memory: DeviceMemory) -> None:
    """Have this process take no more of a GPU than its share. Otherwise a neighbour's cache would
    decide which genome runs out of memory, and when."""
    if device.type == "cuda" and memory.sharing > 1 and memory.total_bytes:
        _, total = torch.cuda.mem_get_info(device)
        allowed = max(0, memory.share_bytes - CONTEXT_BYTES)
        # Of the present GPU, which is this one: torch asks for a number here, or for nothing.
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))


def memory_of(device: torch.device, known: DeviceMemory) -> DeviceMemory:
    """The GPU's memory, before anything is loaded, but no more than the driver knows of the
    smallest GPU of the run; nothing on other devices."""
    if device.type != "cuda":
        return DeviceMemory(sharing=known.sharing)
    free, total = torch.cuda.mem_get_info(device)  # opens the context, which is counted apart
    own = DeviceMemory(int(total), int(min(total, free + CONTEXT_BYTES)))
    return known.at_most(own)
