"""A stand-in for NVIDIA's driver library, whose GPUs a test makes up."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType, SimpleNamespace

import pytest

GIB = 1 << 30


class NVMLError(Exception):
    """As pynvml raises it."""


def fake_gpus(
    patch: pytest.MonkeyPatch,
    *gigabytes: float,
    visible: str | None = None,
    slices: Mapping[int, Sequence[float | None]] | None = None,
    driver: str = "600.1",
    cuda: int = 13000,
    capability: tuple[int, int] | None = None,
    exclusive: bool = False,
) -> None:
    """Make NVML report GPUs of so much memory, half of it free; CUDA_VISIBLE_DEVICES=`visible`.

    `slices` are the sizes of the MIG slices of a GPU by its number (None: a place without one), and
    puts it into MIG mode; `cuda` is the CUDA version that the driver knows, as NVML writes it;
    `capability` is every GPU's (None: not told), `exclusive` has them admit a single process.
    """
    nvml = ModuleType("pynvml")
    slices = slices or {}
    sizes: dict[object, float] = {**dict(enumerate(gigabytes)), "MIG-7": 10.0}
    for gpu, parts in slices.items():
        sizes |= {f"MIG-{gpu}{place}": size for place, size in enumerate(parts) if size is not None}

    def memory(handle: object) -> SimpleNamespace:
        total = int(sizes[handle] * GIB)
        return SimpleNamespace(total=total, free=total // 2)

    def known(handle: object) -> object:
        if handle not in sizes:
            raise NVMLError
        return handle

    def mig_mode(handle: object) -> list[int]:
        if handle not in range(len(gigabytes)):  # a slice, which has no mode
            raise NVMLError
        return [1, 1] if handle in slices else [0, 0]

    nvml.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: driver,
        nvmlSystemGetCudaDriverVersion=lambda: cuda,
        nvmlDeviceGetCount=lambda: len(gigabytes),
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetHandleByUUID=known,
        nvmlDeviceGetUUID=lambda handle: (
            handle if isinstance(handle, str) else f"GPU-{handle}a-{handle}b"
        ),
        nvmlDeviceGetName=lambda handle: f"Fake {handle}",
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetMigMode=mig_mode,
        nvmlDeviceGetMaxMigDeviceCount=lambda handle: len(slices[handle]),
        nvmlDeviceGetMigDeviceHandleByIndex=lambda handle, place: known(f"MIG-{handle}{place}"),
        nvmlDeviceGetCudaComputeCapability=lambda handle: capability,  # noqa: ARG005
        nvmlDeviceGetComputeMode=lambda handle: 3 if exclusive else 0,  # noqa: ARG005
    )
    patch.setitem(sys.modules, "pynvml", nvml)
    if visible is None:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
