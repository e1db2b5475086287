"""Which packages are installed, looked up without importing them, and what a run ran on."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from packaging.requirements import Requirement

INSTALL_UNSLOTH = "Install it: pip install 'coralx[unsloth]' (in a clone: make unsloth)"
INSTALL_QUANTIZATION = "Install it: pip install 'coralx[quantization]'"

OPTIONAL = ("unsloth", "quantization")
"""The extras whose packages train."""

PACKAGES = (
    "coralx",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "accelerate",
    "safetensors",
    "scikit-learn",
    "numpy",
    "moocore",
    "unsloth",
    "unsloth_zoo",
    "trl",
    "bitsandbytes",
    "triton",
)
"""The packages that a result depends on; a run records their versions."""


@dataclass(frozen=True)
class Mismatch:
    """A package whose version lies outside of what CoralX requires."""

    package: str
    found: str | None
    """The installed version; None where it is not installed."""
    bounds: str


@cache
def installed_version(package: str) -> str | None:
    """The version of a distribution; None where it is not installed. It is looked up once, as a
    process may begin many runs."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def is_installed(module: str) -> bool:
    """Whether a top-level module could be imported."""
    return find_spec(module) is not None


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for; None for a CPU build, or without torch.

    `torch/version.py` holds it, and is read as text: importing torch takes seconds.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^cuda(?:\s*:[^=]*)?\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match.group(1) if match else None


def version_mismatches() -> tuple[Mismatch, ...]:
    """Packages whose versions lie outside of what CoralX requires; of what only the extras in
    `OPTIONAL` need, those that are installed. Empty where CoralX itself is not installed as a
    package."""
    try:
        requirements = [Requirement(line) for line in requires("coralx") or ()]
    except PackageNotFoundError:
        return ()
    mismatches = []
    for requirement in requirements:
        installed, marker = installed_version(requirement.name), requirement.marker
        # What only an extra needs has a marker that is false without it.
        is_needed = marker is None or marker.evaluate({"extra": ""})
        extras = [extra for extra in OPTIONAL if marker and marker.evaluate({"extra": extra})]
        if not is_needed and not (installed and extras):
            continue
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            bounds = str(requirement.specifier)
            mismatches.append(Mismatch(requirement.name, installed, bounds))
    return tuple(mismatches)


def versions() -> dict[str, str]:
    """Versions of Python and of those of `PACKAGES` that are installed."""
    installed = {package: installed_version(package) for package in PACKAGES}
    present = {package: version for package, version in installed.items() if version}
    return {"python": platform.python_version(), **present}


def hardware() -> dict[str, str | int]:
    """Operating system, processor, cores and bytes of memory."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
    }
