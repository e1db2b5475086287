"""The settings that `--gpu-check` recommends for a card and a base, from what it has seen."""

from __future__ import annotations

from collections.abc import Mapping

from coralx.config.runtime import Runtime
from coralx.config.yaml_io import write_values

Figures = Mapping[str, Mapping[str, float | str | None]]
"""Of each part that passed, by its name."""

Settings = dict[str, dict[str, bool | int | str]]
"""Values by section and key of a config."""

WORTH_IT = 1.05
"""What is so many times as fast is recommended. Below that it may be chance."""

COMPILING_PAYS, WITHIN_STEPS = 1.1, 200.0
"""More is asked of compiled layers, as a resumed run need not equal one that was never cut: so many
times the speed, and compiling made up for within so many steps of an adapter."""

ROOM = 0.8
"""The share of a card's memory that a genome may take without gradient checkpointing: larger ones
than the check's may come."""

COMPUTES_BF16 = (8, 0)
"""The compute capability from which on cards compute in bf16; those before only emulate it."""


def precision_of(capability: tuple[int, int]) -> str:
    """The 16-bit format in which a card of that compute capability is fast."""
    return "bf16" if capability >= COMPUTES_BF16 else "fp16"


def with_precision(
    settings: Settings, configured: str, capability: tuple[int, int] | None
) -> Settings:
    """The settings, with the choice of precision left to the card where the config names one in
    which the card is slow."""
    if configured == "auto" or capability is None or configured == precision_of(capability):
        return settings
    return {**settings, "training": {"precision": "auto"}}


def with_way_made(settings: Settings, configured: Runtime) -> Settings:
    """The settings, with those of the config left to themselves that would contradict them, or
    leave them without effect."""
    found = dict(settings.get("runtime", {}))
    if "workers_per_gpu" in found and configured.workers != "auto":
        found["workers"] = "auto"
    needs_workers = found.get("workers_per_gpu", 1) != 1 or found.get("block_compile") is True
    if needs_workers and configured.executor == "in-process":
        found["executor"] = "auto"
    if found.get("backend") == "peft" and configured.block_compile:
        found["block_compile"] = False
    return {**settings, "runtime": found} if found else settings


def recommended(
    figures: Figures, *, backend: str, reference: str, failed: set[str], memory_bytes: int
) -> Settings:
    """Settings for what `backend` trains; nothing about what was not seen.

    `failed` names the parts that did, of which only those count that compare the backend with the
    `reference`; `memory_bytes` is the card's memory.
    """
    runtime: dict[str, bool | int | str] = {}
    if failed and backend != reference:
        return {"runtime": {"backend": reference}}
    speeds = figures.get("losses of long texts", {})
    ours, theirs = speeds.get(backend), speeds.get(reference)
    if backend != reference and isinstance(ours, float) and isinstance(theirs, float):
        runtime["backend"] = backend if ours * WORTH_IT >= theirs else reference
    if runtime.get("backend") == reference:
        return {"runtime": runtime}
    runtime |= _checkpointing(figures.get("checkpointing", {}), memory_bytes)
    if compiled := figures.get("block compile", {}):
        is_faster = _number(compiled, "on") > COMPILING_PAYS * _number(compiled, "off")
        pays_after = compiled.get("pays_after_steps")
        is_soon = isinstance(pays_after, float) and pays_after <= WITHIN_STEPS
        runtime["block_compile"] = is_faster and is_soon
    if workers := best_number(figures.get("workers", {})):
        runtime["workers_per_gpu"] = workers
    return {"runtime": runtime} if runtime else {}


def best_number(speeds: Mapping[str, float | str | None]) -> int | None:
    """How many workers to recommend, by the speed of each number: more only where they pay. None
    without figures of two numbers."""
    tried = sorted((int(number), value) for number, value in speeds.items())
    if len(tried) < 2:
        return None
    best, fastest = 0, 0.0
    for number, value in tried:
        if isinstance(value, float) and value > WORTH_IT * fastest:
            best, fastest = number, value
    return best or None


def one_line(settings: Settings) -> str:
    """The settings as one line."""
    named = [
        f"{key}: {str(value).lower()}" for keys in settings.values() for key, value in keys.items()
    ]
    return ", ".join(named) or "nothing beyond the defaults"


def settings_yaml(settings: Settings, about: str, name: str) -> str:
    """The settings as the text of a file of that name."""
    return (
        f"# {about}\n"
        f"# To use them: coralx evolve CONFIG --settings {name}, or copy them into the config.\n"
        f"{write_values(settings)}"
    )


def _checkpointing(
    seen: Mapping[str, float | str | None], memory_bytes: int
) -> dict[str, bool | int | str]:
    """Off where it is faster and leaves room, on where memory ran out without it, else by need."""
    if "on" not in seen:
        return {}
    if "off" not in seen or "off_rows" in seen:
        return {"gradient_checkpointing": True}
    if _number(seen, "off") <= WORTH_IT * _number(seen, "on"):
        return {"gradient_checkpointing": "auto"}
    peak = _number(seen, "off_peak_bytes")
    has_room = 0 < peak <= ROOM * memory_bytes
    return {"gradient_checkpointing": False if has_room else "auto"}


def _number(figures: Mapping[str, float | str | None], name: str) -> float:
    value = figures.get(name)
    return float(value) if isinstance(value, float | int) else 0.0
