"""The mode of a run: simulation, hyperband or full training."""

from __future__ import annotations

from pathlib import Path

from coralx.config.data import key_of
from coralx.config.input_files import missing_inputs
from coralx.config.schema import Config
from coralx.errors import ConfigError, UsageError
from coralx.records.mode import Mode


def mode_of(config: Config) -> Mode:
    """The mode that a resolved config is for."""
    if not config.hyperband_config.enable_hyperband:
        return "full"
    return "simulation" if config.runtime.backend == "simulated" else "hyperband"


def resolve_mode(config: Config, mode: Mode | None, backend: str | None) -> Config:
    """The config with the flags `--mode` and `--backend` written into it.

    Raises UsageError where the two contradict each other, ConfigError where the mode needs a model
    or data that the config does not name.
    """
    if mode == "simulation" and backend not in (None, "auto", "simulated"):
        raise UsageError(
            f"--mode simulation trains nothing, so --backend {backend} contradicts it",
            "Leave out one of the two.",
        )
    if mode == "hyperband" and backend == "simulated":
        raise UsageError(
            "--mode hyperband trains for real, so --backend simulated contradicts it",
            "Use --mode simulation.",
        )
    chosen = "simulated" if mode == "simulation" else backend or config.runtime.backend
    if mode == "hyperband" and chosen == "simulated":  # the flag wins over the config
        chosen = "auto"
    if chosen == "peft" and config.runtime.block_compile:
        raise UsageError(
            "--backend peft: runtime.block_compile is Unsloth's",
            "Add --set runtime.block_compile=false, or leave out --backend.",
        )
    enabled = mode != "full" if mode else config.hyperband_config.enable_hyperband
    resolved = config.model_copy(
        update={
            "runtime": config.runtime.model_copy(update={"backend": chosen}),
            "hyperband_config": config.hyperband_config.model_copy(
                update={"enable_hyperband": enabled}
            ),
        }
    )
    _require_inputs(resolved)
    return resolved


def _require_inputs(config: Config) -> None:
    problems = []
    hint = ""
    if config.runtime.backend == "simulated":
        if config.data.steps_per_epoch is None and not config.data.known_rows:
            problems.append("data.steps_per_epoch: missing; a simulation has no rows to count")
            hint = "For example: --set data.steps_per_epoch=1000"
    else:
        if config.model.base is None:
            problems.append("model.base: missing; set a hub id, a local folder, or builtin:minilm")
        for task, source in config.data.sources.items():
            if source.train is None:
                key = key_of(task, "train")
                problems.append(f"{key}: missing; set a file, a hub id, or builtin:tweets")
        hint = "To try the schedule without a model and data: --mode simulation"
        missing = missing_inputs(config)
        if missing:
            problems += missing
            hint = (
                f"Paths are looked up from the working folder ({Path.cwd()}), then from the "
                "config's."
            )
    if problems:
        raise ConfigError("config", problems, hint)
