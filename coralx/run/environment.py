"""What a run ran on: written into its first event."""

from __future__ import annotations

import os
import platform

import psutil

from coralx.packages import installed_version

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


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, read without importing."""
    found = {"python": platform.python_version()}
    listed = {package: installed_version(package) for package in PACKAGES}
    return found | {package: version for package, version in listed.items() if version}


def hardware() -> dict[str, str | int]:
    """Operating system, processor, cores and bytes of memory."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
    }
