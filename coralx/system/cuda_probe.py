"""Whether torch can open the GPUs that NVIDIA's driver shows, asked of a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from coralx.errors import SetupError
from coralx.system.environment import installed_version, torch_cuda
from coralx.system.gpus import Gpu, driver_cuda, driver_version
from coralx.system.torch_builds import Driver, suitable_build, why_unused

PATIENCE_SECONDS = 120.0
"""A driver in disorder may hang."""

_OPENING = """
import sys
try:
    import torch
    torch.cuda.init()
    (torch.ones(1, device="cuda") + 1).item()
except Exception as error:
    sys.exit((str(error).strip().splitlines() or [type(error).__name__])[0])
"""
"""A first operation, since a build without kernels for the GPU opens it and fails there."""


def obstacle_to_gpu() -> str | None:
    """Why torch cannot compute on the first visible GPU, in its own words; None if it can. Takes as
    long as torch takes to load."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _OPENING],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            timeout=PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"torch did not open it within {PATIENCE_SECONDS:g} s"
    if done.returncode == 0:  # whatever was printed: this environment may print at every start
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"torch ended with exit code {done.returncode}"


def unusable(gpus: Sequence[Gpu], obstacle: str | None = None) -> SetupError:
    """What to raise where the driver shows GPUs and torch, built for CUDA, opens none of them;
    `obstacle` is the reason, if it is known."""
    names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
    driver, latest, built = driver_version() or "unknown", driver_cuda(), torch_cuda()
    knows = f" (for CUDA up to {latest})" if latest else ""
    why = f": {obstacle}" if obstacle else ""
    if latest and built and _major(latest) < _major(built):
        way_out = f"The driver is too old for this torch. {suitable_torch(gpus, or_driver=True)}"
    else:
        way_out = (
            "Check that nvidia-smi works and, in a container, that it was given the GPU to compute "
            "on (docker run --gpus all, NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        )
    return SetupError(
        f"torch cannot use the GPU that NVIDIA's driver shows ({names}){why}; driver "
        f"{driver}{knows}, torch {installed_version('torch')} built for CUDA {built}",
        f'{way_out}; to train on the CPU on purpose, set CUDA_VISIBLE_DEVICES="".',
    )


def suitable_torch(gpus: Sequence[Gpu], *, or_driver: bool = False) -> str:
    """Which build of torch to install for the GPUs and this machine's driver (or else which
    driver), as a sentence without its full stop."""
    driver = Driver(
        driver_version() or "", tuple(gpu.capability for gpu in gpus if gpu.capability is not None)
    )
    build = suitable_build(driver)
    if build is None:
        why = why_unused(driver)
        return why[0].upper() + why[1:]
    first = "a newer driver, or " if or_driver else ""
    return (
        f"Install {first}a build of torch for CUDA {build.cuda}, as "
        "https://pytorch.org/get-started shows"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])
