"""Which build of torch suits this machine's NVIDIA GPUs. The Makefile asks before anything is
installed, so this needs the standard library alone.

    python -m coralx.system.torch_builds auto
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

TORCH = "2.13"
"""The release that `BUILDS` are of: the one that constraints.txt pins."""

WSL = Path("/usr/lib/wsl/lib/nvidia-smi")
"""Where Windows puts it in its Linux, which not every shell has on its path."""

DEVICE = Path("/dev/nvidiactl")
"""What Linux's own driver makes, and a container with a GPU has."""

Capability = tuple[int, int]


@dataclass(frozen=True)
class Build:
    """A build of torch for GPUs."""

    cuda: str
    least_driver: int
    """The oldest series of drivers that runs it."""
    oldest: Capability
    """The least compute capability that CoralX trains on with it."""
    beyond: Capability
    """The first compute capability that it does not know."""

    def runs_on(self, capability: Capability) -> bool:
        """Whether it has kernels for such GPUs."""
        return self.oldest <= capability < self.beyond


BUILDS = (
    Build("13.0", least_driver=580, oldest=(7, 5), beyond=(99, 0)),
    Build("12.6", least_driver=525, oldest=(7, 0), beyond=(10, 0)),
)
"""Newest first. The first is what the package index has, the other lies on PyTorch's own. Kernels:
RELEASE.md of PyTorch; drivers: NVIDIA's table of minor-version compatibility. Torch for CUDA 12.6
knows older GPUs than Volta (7.0), but Triton does not, with which Unsloth's kernels are written."""


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver, and the GPUs that it shows."""

    version: str
    capabilities: tuple[Capability, ...]
    """Of each GPU; those that an old driver does not tell are left out."""

    @property
    def series(self) -> int:
        """580 of driver 580.95.05."""
        number = self.version.split(".")[0]
        return int(number) if number.isdigit() else 0


def suitable_build(driver: Driver) -> Build | None:
    """The newest build that runs with this driver on all GPUs, or on some if none runs on all; None
    if none runs on any."""
    able = [build for build in BUILDS if build.least_driver <= driver.series]
    if not driver.capabilities:
        return able[0] if able else None
    counts = [sum(map(build.runs_on, driver.capabilities)) for build in able]
    if not any(counts):
        return None
    return able[counts.index(max(counts))]


def why_unused(driver: Driver) -> str:
    """Why no build runs, and what to do, for a driver that `suitable_build` finds none for."""
    needed = [b for b in BUILDS if any(map(b.runs_on, driver.capabilities))]
    if driver.capabilities and not needed:
        least = min(build.oldest for build in BUILDS)
        return (
            f"the compute capability is {_listed(driver.capabilities)}, and training needs "
            f"{_listed([least])} (Volta) or newer"
        )
    least_driver = min(build.least_driver for build in needed or BUILDS)
    return (
        f"NVIDIA's driver {driver.version} is too old for torch {TORCH}, which needs "
        f"{least_driver} or newer. Update it, and run this again"
    )


class NoDriver(Exception):
    """Why no driver answers; empty where nothing points to a GPU."""


def ask_driver() -> Driver:
    """The driver of this machine, as nvidia-smi tells. Raises NoDriver."""
    tool = shutil.which("nvidia-smi") or (str(WSL) if WSL.is_file() else None)
    if tool is None:
        if not DEVICE.exists():
            raise NoDriver
        raise NoDriver(
            f"there is {DEVICE}, but no nvidia-smi; a container needs "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        )
    try:
        rows = list(_query(tool, "driver_version,compute_cap"))
    except NoDriver:  # an old driver does not know `compute_cap`
        rows = list(_query(tool, "driver_version"))
    if not rows:
        raise NoDriver("nvidia-smi lists no GPU")
    capabilities = (_capability(row[1]) for row in rows if len(row) > 1)
    return Driver(rows[0][0], tuple(found for found in capabilities if found is not None))


def _query(tool: str, fields: str) -> Iterable[list[str]]:
    """One row of values for each GPU."""
    command = [tool, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoDriver(f"nvidia-smi does not answer: {error}") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"
        raise NoDriver(f"nvidia-smi fails: {said.splitlines()[0]}")
    lines = filter(str.strip, done.stdout.splitlines())
    return ([value.strip() for value in line.split(",")] for line in lines)


def _capability(text: str) -> Capability | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def _listed(capabilities: Iterable[Capability]) -> str:
    return ", ".join(sorted({f"{major}.{minor}" for major, minor in capabilities}))


def answer(wanted: str, note: Callable[[str], None]) -> str:
    """The CUDA version of the build to install; `none` where the machine has no NVIDIA GPU, and
    `unused` where it is not to be used, or cannot be. What its user should know goes to `note`.

    `wanted` is auto, no, or the CUDA version of a build. Raises ValueError for anything else.
    """
    versions = [build.cuda for build in BUILDS]
    if wanted in versions:
        return wanted
    if wanted not in ("auto", "no"):
        raise ValueError(f"GPU={wanted} is none of auto, no, {', '.join(versions)}")
    if wanted == "no":
        return "unused"
    try:
        driver = ask_driver()
    except NoDriver as reason:
        if not str(reason):
            return "none"
        note(f"no GPU is used: {reason}")
        return "unused"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "any").strip() in ("", "-1"):
        note("no GPU is used: CUDA_VISIBLE_DEVICES hides every one")
        return "unused"
    build = suitable_build(driver)
    if build is None:
        note(f"no GPU is used: {why_unused(driver)}")
        return "unused"
    left_out = [c for c in driver.capabilities if not build.runs_on(c)]
    if left_out:
        note(
            f"torch for CUDA {build.cuda} does not run on GPUs of compute capability "
            f"{_listed(left_out)}. Leave these out of CUDA_VISIBLE_DEVICES"
        )
    return build.cuda


def main() -> int:
    """Print the answer, and notes to stderr; exit code 2 where the question is not understood."""
    try:
        print(answer(sys.argv[1], lambda line: print(f"make: {line}", file=sys.stderr)))
    except ValueError as error:
        print(f"make: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
