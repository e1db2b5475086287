"""What makes and frees the memory through which layer inputs go."""

from __future__ import annotations

from typing import Any

CALLED: list[str] = []


def patch_unsloth_smart_gradient_checkpointing(dtype: Any = None) -> None:
    CALLED.append(f"patch {dtype}")


def unpatch_unsloth_smart_gradient_checkpointing() -> None:
    CALLED.append("unpatch")
