"""The GPUs that this process may use, as NVIDIA's driver lists them: no torch is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

VARIABLE = "CUDA_VISIBLE_DEVICES"
HIP_VARIABLE = "HIP_VISIBLE_DEVICES"

MIG_ENABLED, EXCLUSIVE_PROCESS = 1, 3
"""NVML's numbers: NVML_DEVICE_MIG_ENABLE, NVML_COMPUTEMODE_EXCLUSIVE_PROCESS."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one slice of it (MIG)."""

    index: int
    """Its number among the visible ones."""
    uuid: str
    """The value of CUDA_VISIBLE_DEVICES that leaves this one visible alone."""
    name: str
    memory_bytes: int
    """0 where the driver does not say."""
    free_bytes: int
    """0 where the driver does not say."""
    capability: tuple[int, int] | None = None
    """Its compute capability; None where the driver does not say."""
    is_exclusive: bool = False
    """Whether it admits one process at a time (the compute mode EXCLUSIVE_PROCESS)."""


def visible_gpus() -> tuple[Gpu, ...]:
    """GPUs that CUDA_VISIBLE_DEVICES leaves visible, in its order; none without NVIDIA's driver.

    As CUDA does, it reads the list up to the first entry that names no GPU. In the place of a GPU
    that is cut into slices (MIG) stand its slices: a process computes on a slice, never on the
    whole, and on the first one unless it is told which.
    """
    listed = os.environ.get(VARIABLE)
    with _driver() as nvml:
        if nvml is None:
            return ()
        handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
        present = [(_text(nvml.nvmlDeviceGetUUID(handle)), handle) for handle in handles]
        chosen = present if listed is None else _named(nvml, listed, present)
        computing = [part for entry in chosen for part in _in_slices(nvml, *entry)]
        return tuple(_gpu(nvml, place, *entry) for place, entry in enumerate(computing))
    return ()


def driver_version() -> str | None:
    """The version of NVIDIA's driver; None without one."""
    with _driver() as nvml:
        return _text(nvml.nvmlSystemGetDriverVersion()) if nvml is not None else None
    return None


def driver_cuda() -> str | None:
    """The latest CUDA version that NVIDIA's driver knows, such as 12.4; None without one."""
    with _driver() as nvml:
        number = _told(nvml, lambda: nvml.nvmlSystemGetCudaDriverVersion())
        return f"{number // 1000}.{number % 1000 // 10}" if number else None
    return None


@contextlib.contextmanager
def _driver() -> Iterator[Any]:
    """NVML, opened; None without a driver. An error of the driver ends the block silently: a
    machine whose driver is broken counts as one without GPUs."""
    import pynvml  # takes a tenth of a second, and most commands do without

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError):
        yield None
        return
    try:
        with contextlib.suppress(pynvml.NVMLError):
            yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _named(nvml: Any, listed: str, present: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """What the entries of CUDA_VISIBLE_DEVICES name, each with the text of its entry: the driver
    may number the GPUs of a mixed machine in another order than CUDA does."""
    chosen: list[tuple[str, Any]] = []
    for entry in (part.strip() for part in listed.split(",")):
        if entry.isdigit() and int(entry) < len(present):
            handle = present[int(entry)][1]
        elif entry.startswith("GPU-"):
            handle = next((handle for uuid, handle in present if uuid.startswith(entry)), None)
        elif entry.startswith("MIG-"):
            handle = _mig_slice(nvml, entry)
        else:
            handle = None
        if handle is None:  # CUDA ignores whatever follows such an entry
            break
        chosen.append((entry, handle))
    return chosen


def _mig_slice(nvml: Any, uuid: str) -> Any:
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return None


def _in_slices(nvml: Any, entry: str, handle: Any) -> list[tuple[str, Any]]:
    """The slices of a GPU in MIG mode, each with its UUID: none where none has been made. Any other
    GPU, and a slice, is as it was."""
    mode = _told(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    if entry.startswith("MIG-") or not mode or mode[0] != MIG_ENABLED:  # the second is to come
        return [(entry, handle)]
    most = _told(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    slice_at = partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle)
    places = (_told(nvml, partial(slice_at, place)) for place in range(most))
    # Places may be empty between two slices.
    return [(_text(nvml.nvmlDeviceGetUUID(part)), part) for part in places if part is not None]


def _gpu(nvml: Any, place: int, uuid: str, handle: Any) -> Gpu:
    memory = _told(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    name = _told(nvml, lambda: nvml.nvmlDeviceGetName(handle))
    capability = _told(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Gpu(
        place,
        uuid,
        "GPU" if name is None else _text(name),
        int(memory.total) if memory else 0,
        int(memory.free) if memory else 0,
        (int(capability[0]), int(capability[1])) if capability else None,
        _told(nvml, lambda: nvml.nvmlDeviceGetComputeMode(handle)) == EXCLUSIVE_PROCESS,
    )


def _told(nvml: Any, ask: Callable[[], Any]) -> Any:
    """The driver's answer; None where it, the GPU or this version of NVML has none."""
    try:
        return None if nvml is None else ask()
    except (nvml.NVMLError, AttributeError):
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
