"""What can be read of a run folder: its config and its ledger, and what is to be said of the two.

Nothing is changed. The other files are judged by `run.soundness`, the reports by
`report.soundness`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coralx.config import Config, load_config
from coralx.config.loading import parse_yaml
from coralx.config.modes import mode_of
from coralx.errors import ConfigError, DamagedRunError
from coralx.packages import installed_version
from coralx.run.finale import front_of
from coralx.run.history import History
from coralx.run.layout import RunLayout
from coralx.run.ledger import Entry, Ledger

State = Literal["ok", "notice", "damaged"]


@dataclass(frozen=True)
class Finding:
    """What was found of a file, whose name is relative to the run folder. A notice is harmless."""

    state: State
    file: str
    found: str
    way_out: str = ""


@dataclass(frozen=True)
class Readable:
    """What can be read of a run; None where it is damaged."""

    config: Config | None
    entries: tuple[Entry, ...] | None
    history: History | None


def read_run(layout: RunLayout) -> tuple[Readable, list[Finding]]:
    """Config and ledger, and what is to be said of the two."""
    entries, findings = _ledger(layout)
    history = History(entry.event for entry in entries) if entries else None
    config, of_config = _config(layout, history)
    return Readable(config, entries, history), [of_config, *findings]


def damage(
    layout: RunLayout, error: DamagedRunError | OSError, file: Path, way_out: str
) -> Finding:
    """The finding that an error comes to, which names its file itself or is about `file`."""
    if isinstance(error, OSError):
        return Finding("damaged", layout.relative(file), f"cannot be read: {error}", way_out)
    where, _, found = error.message.removeprefix(f"{layout.root}/").partition(": ")
    return Finding("damaged", where, found, error.hint or way_out)


# -- config and ledger -----------------------------------------------------------------------------


def _config(layout: RunLayout, history: History | None) -> tuple[Config | None, Finding]:
    name = layout.relative(layout.config)
    way_out = "Put the config there that the run began with; a resume writes every default out."
    if not layout.config.is_file():
        return None, Finding("damaged", name, "missing", way_out)
    try:
        config = load_config(layout.config)
        text = layout.config.read_text(encoding="utf-8")
        missing = _missing(parse_yaml(text, name), config.model_dump(mode="json"))
    except ConfigError as error:
        return None, Finding("damaged", name, "; ".join(error.problems), way_out)
    contradiction = _contradiction(config, history) if history and history.started else None
    if contradiction is not None:
        return None, Finding("damaged", name, contradiction, way_out)
    if not text.endswith("\n") or (missing and _is_of_this_version(history)):
        cut = f"cut off: {missing[0]} is missing" if missing else "cut off in its last line"
        return None, Finding("damaged", name, cut, way_out)
    if missing:
        told = f"written by another version of CoralX, without {missing[0]}"
        return config, Finding("notice", name, told, "A resume adds it, with its default.")
    return config, Finding("ok", name, "readable and valid")


def _missing(written: Any, whole: Any, path: str = "") -> list[str]:
    """Dotted paths of keys that a resolved config has and the file lacks."""
    if not isinstance(whole, dict) or not isinstance(written, dict):
        return []
    found = []
    for key, value in whole.items():
        place = f"{path}.{key}".lstrip(".")
        found += _missing(written[key], value, place) if key in written else [place]
    return found


def _is_of_this_version(history: History | None) -> bool:
    started = history.started if history else None
    return started is not None and started.versions.get("coralx") == installed_version("coralx")


def _contradiction(config: Config, history: History) -> str | None:
    """Where the ledger tells of another config."""
    started, completed = history.started, history.completed
    if started is not None and (started.seed, started.mode) != (
        config.experiment.seed,
        mode_of(config),
    ):
        return (
            f"seed {config.experiment.seed} and mode {mode_of(config)}; the ledger has seed "
            f"{started.seed} and mode {started.mode}"
        )
    stages = [stage.name for stage in config.hyperband_config.training_stages]
    trained = {stage for _, stage in history.results}
    if not trained <= set(stages):
        return f"no stage {sorted(trained - set(stages))[0]}, which the ledger has results of"
    if completed is not None and set(front_of(config, history, stages[-1])) != {*completed.front}:
        return "the front by its objectives and constraints is not the one in the ledger"
    return None


def _ledger(layout: RunLayout) -> tuple[tuple[Entry, ...] | None, list[Finding]]:
    name = layout.relative(layout.ledger)
    restore = "Restore it from a backup."
    if not layout.ledger.is_file():
        return None, [Finding("damaged", name, "missing", f"{restore} Nothing replaces it.")]
    try:
        entries = Ledger.read(layout.ledger)
        is_torn = not layout.ledger.read_bytes().endswith(b"\n")
    except (DamagedRunError, OSError) as error:
        cut = "Or keep a copy, cut the file off before that line, and resume: what followed is "
        way_out = f"{restore} {cut}trained again."
        return None, [damage(layout, error, layout.ledger, way_out)]
    findings = []
    if History(entry.event for entry in entries).started is None and entries:
        told = "does not begin with its first event"
        return None, [Finding("damaged", f"{name}, line 1", told, restore)]
    if entries:
        findings.append(Finding("ok", name, f"{len(entries)} events, every line as it was written"))
    if is_torn:
        torn = f"{name}, line {len(entries) + 1}"
        told = "torn off, as by a kill or an empty file"
        way_out = "A resume drops it." if entries else "No run has begun here: its name is free."
        findings.append(Finding("notice", torn, told, way_out))
    return entries or None, findings
