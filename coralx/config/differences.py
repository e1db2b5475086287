"""Where two configs differ, and which differences a resumed run accepts."""

from __future__ import annotations

from typing import Any

from coralx.config.schema import Config

FIXED = ("runtime.backend", "runtime.quantization")
"""Keys under `runtime` that a run keeps: they decide what its figures are measured with."""

BASE = "model.base"
"""Where the base lies. It may be moved: its fingerprint shows whether it is still the same."""

MAY_DIFFER = (
    f"Only budget.*, runtime.* (but for {', '.join(FIXED)}), where the same {BASE} lies, and a "
    "greater number of generations may"
)


def contradictions(own: Config, other: Config) -> list[str]:
    """Dotted paths of the keys that keep a run which began under `own` from going on under
    `other`."""
    return [key for key in differences(own, other) if not _may_differ(key, own, other)]


def _may_differ(key: str, own: Config, other: Config) -> bool:
    if key == "evolution.generations":  # fewer would undo generations that are decided
        return other.evolution.generations > own.evolution.generations
    if key == BASE:
        return own.model.base is not None and other.model.base is not None
    return key.startswith(("budget.", "runtime.")) and key not in FIXED


def with_left_out_as_in(own: Config, other: Config) -> Config:
    """`other`, but where it leaves out a gene whose default follows from evidence, as `own` has it:
    a version before may have had another default."""
    if "learning_rate" in other.search_space.model_fields_set:
        return other
    kept = {"learning_rate": own.search_space.learning_rate}
    return other.model_copy(update={"search_space": other.search_space.model_copy(update=kept)})


def differences(first: Config, second: Config) -> list[str]:
    """Dotted paths of the keys that differ."""
    return _differing(first.model_dump(mode="json"), second.model_dump(mode="json"), "")


def _differing(first: Any, second: Any, path: str) -> list[str]:
    if not isinstance(first, dict) or not isinstance(second, dict):
        return [] if first == second else [path]
    paths = []
    for key in {**first, **second}:  # the keys of both, each once
        inner = f"{path}.{key}" if path else key
        paths += _differing(first.get(key), second.get(key), inner)
    return paths
