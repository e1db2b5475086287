"""Where two configs differ."""

from __future__ import annotations

from typing import Any

from coralx.config.schema import Config


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
