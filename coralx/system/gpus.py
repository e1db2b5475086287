"""The GPUs that this process may use, as NVIDIA's driver lists them: no torch is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

VARIABLE = "CUDA_VISIBLE_DEVICES"


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


def visible_gpus() -> tuple[Gpu, ...]:
    """GPUs that CUDA_VISIBLE_DEVICES leaves visible, in its order; none without NVIDIA's driver.

    As CUDA does, it reads the list up to the first entry that names no GPU.
    """
    listed = os.environ.get(VARIABLE)
    with _driver() as nvml:
        if nvml is None:
            return ()
        handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
        present = [(_text(nvml.nvmlDeviceGetUUID(handle)), handle) for handle in handles]
        chosen = present if listed is None else _named(nvml, listed, present)
        return tuple(_gpu(nvml, place, *entry) for place, entry in enumerate(chosen))
    return ()


def driver_version() -> str | None:
    """The version of NVIDIA's driver; None without one."""
    with _driver() as nvml:
        return _text(nvml.nvmlSystemGetDriverVersion()) if nvml is not None else None
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


def _gpu(nvml: Any, place: int, uuid: str, handle: Any) -> Gpu:
    total = free = 0
    with contextlib.suppress(nvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    name = "GPU"
    with contextlib.suppress(nvml.NVMLError):
        name = _text(nvml.nvmlDeviceGetName(handle))
    return Gpu(place, uuid, name, total, free)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
