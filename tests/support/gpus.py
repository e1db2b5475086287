"""A stand-in for NVIDIA's driver library, whose GPUs a test makes up."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

GIB = 1 << 30


class NVMLError(Exception):
    """As pynvml raises it."""


def fake_gpus(patch: pytest.MonkeyPatch, *gigabytes: float, visible: str | None = None) -> None:
    """Make NVML report GPUs of so much memory, half of it free; CUDA_VISIBLE_DEVICES=`visible`."""
    nvml = ModuleType("pynvml")
    slices = {"MIG-7": len(gigabytes)}
    sizes = [*gigabytes, 10.0]

    def memory(handle: int) -> SimpleNamespace:
        total = int(sizes[handle] * GIB)
        return SimpleNamespace(total=total, free=total // 2)

    def by_uuid(uuid: str) -> int:
        if uuid not in slices:
            raise NVMLError
        return slices[uuid]

    nvml.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "600.1",
        nvmlDeviceGetCount=lambda: len(gigabytes),
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}a-{handle}b",
        nvmlDeviceGetName=lambda handle: f"Fake {handle}",
        nvmlDeviceGetMemoryInfo=memory,
    )
    patch.setitem(sys.modules, "pynvml", nvml)
    if visible is None:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
