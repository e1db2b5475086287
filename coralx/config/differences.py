"""Where two configs differ, and where they may within one run."""

from __future__ import annotations

from typing import Any

from coralx.config.schema import Config

FIXED = ("runtime.backend", "runtime.quantization")
"""What trains on which base: a run that changed it would no longer compare like with like."""

BASE = "model.base"
"""Where the base lies; that it is the same one there is seen by its fingerprint."""

MAY_DIFFER = (
    f"Only budget.*, runtime.* (but for {', '.join(FIXED)}), where the same {BASE} lies, and a "
    "greater number of generations may"
)


def contradictions(own: Config, other: Config) -> list[str]:
    """Dotted paths of what a run that began under `own` cannot take over from `other`."""
    return [key for key in differences(own, other) if not _may_differ(key, own, other)]


def _may_differ(key: str, own: Config, other: Config) -> bool:
    if key == "evolution.generations":
        return other.evolution.generations > own.evolution.generations
    if key == BASE:
        return own.model.base is not None and other.model.base is not None
    return key.startswith(("budget.", "runtime.")) and key not in FIXED


def differences(first: Config, second: Config) -> list[str]:
    """Dotted paths of the keys that differ."""
    return _differing(first.model_dump(mode="json"), second.model_dump(mode="json"), "")


def _differing(first: Any, second: Any, path: str) -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            found
            for key in {**first, **second}
            for found in _differing(first.get(key), second.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if first == second else [path]
