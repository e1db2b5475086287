"""How many workers on one GPU train most, as `coralx doctor --gpu-check` has found it, remembered
on this machine."""

from __future__ import annotations

import json
from contextlib import suppress

from coralx.config.schema import Config
from coralx.errors import SetupError
from coralx.system.files import cache_folder, canonical_json, write_atomically
from coralx.system.gpus import Gpu

FILE = "gpu-check.json"


def remember(gpu: Gpu, config: Config, workers: int) -> None:
    """Remember that so many workers on such a GPU train such a config fastest; where nothing can be
    written, nothing is remembered."""
    with suppress(SetupError):
        found = {**_found(), _key(gpu, config): workers}
        write_atomically(cache_folder() / FILE, json.dumps(found, indent=1, sort_keys=True))


def remembered(gpu: Gpu, config: Config) -> int | None:
    """How many workers on such a GPU train such a config fastest; None where that was never tried
    on this machine."""
    return _found().get(_key(gpu, config))


def _found() -> dict[str, int]:
    """What is remembered; nothing of a file that is damaged."""
    try:
        found = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
    except (SetupError, OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if type(value) is int and value > 0}


def _key(gpu: Gpu, config: Config) -> str:
    """What the number depends on most: the card, the base and how much a step reads of it."""
    model = config.model
    return canonical_json(
        {
            "card": [gpu.name, gpu.memory_bytes],
            "base": [model.base, config.runtime.quantization],
            "task": [model.task, model.max_length, config.training.batch_size],
        }
    )
