"""What can be read of a run folder: its config and its ledger, and the findings on the two.

Nothing is changed. The other files are judged by `doctor.run_artifacts`, the reports by
`doctor.run_check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coralx.config import Config, load_config, parse_config
from coralx.config.differences import contradictions
from coralx.errors import ConfigError, DamagedRunError
from coralx.storage.consistency import require_consistent
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, is_free, ledger_fault, ledger_way_out
from coralx.storage.ledger import Entry, Ledger
from coralx.text import counted

State = Literal["ok", "notice", "damaged"]


@dataclass(frozen=True)
class Finding:
    """What was found of one file."""

    state: State
    """A notice is harmless."""
    file: str
    """Its path relative to the run folder; "." for the folder itself."""
    found: str
    """What is wrong with it, or that nothing is."""
    way_out: str = ""
    """What to do, in a sentence; empty where nothing is to be done."""


@dataclass(frozen=True)
class ReadableRun:
    """What can be read of a run; None where it is damaged."""

    config: Config | None
    entries: tuple[Entry, ...] | None
    history: History | None


def read_run(layout: RunLayout) -> tuple[ReadableRun, list[Finding]]:
    """Config and ledger, and the findings on the two."""
    entries, findings = _ledger(layout)
    history = History(entry.event for entry in entries) if entries else None
    config, config_finding = _config(layout, history)
    if history is not None and config is not None:
        try:
            require_consistent(history, config, layout)
        except DamagedRunError as error:
            findings.append(damage(layout, error, layout.ledger, ""))
            return ReadableRun(config, None, None), [config_finding, *findings]
    return ReadableRun(config, entries, history), [config_finding, *findings]


def damage(
    layout: RunLayout, error: DamagedRunError | OSError, file: Path, way_out: str
) -> Finding:
    """The finding for an error, which names its file itself or is about `file`."""
    if isinstance(error, OSError):
        return Finding("damaged", layout.relative(file), f"cannot be read: {error}", way_out)
    where, _, problem = error.message.removeprefix(f"{layout.root}/").partition(": ")
    return Finding("damaged", where, problem, error.hint or way_out)


# -- config and ledger -----------------------------------------------------------------------------


def recorded_config(history: History, layout: RunLayout) -> Config | None:
    """The config of the run's last start or resume, from its ledger; None where an earlier version
    did not record it. Raises DamagedRunError where it is no config."""
    if history.recorded_config is None:
        return None
    try:
        return parse_config(dict(history.recorded_config), str(layout.ledger))
    except ConfigError as error:
        raise DamagedRunError(
            f"{layout.ledger}: the recorded config is invalid: {error.problems[0]}"
        ) from None


def _config(layout: RunLayout, history: History | None) -> tuple[Config | None, Finding]:
    name = layout.relative(layout.config)
    recorded = recorded_config(history, layout) if history else None
    way_out = "Restore the config that the run began with."
    if recorded is not None:
        way_out = "Delete it: a resume writes it again from the ledger."
    if not layout.config.is_file():
        if recorded is None:
            return None, Finding("damaged", name, "missing", way_out)
        return recorded, Finding("notice", name, "missing", "A resume takes it from the ledger.")
    try:
        config = load_config(layout.config, resolved=True)
        is_cut = not layout.config.read_text(encoding="utf-8").endswith("\n")
    except ConfigError as error:
        return recorded, Finding("damaged", name, "; ".join(error.problems), way_out)
    # judged by the ledger: it is checksummed, and the file may have been edited
    if recorded is not None and (changed := contradictions(recorded, config)):
        problem = f"differs from the config that the run began with in {', '.join(changed)}"
        return recorded, Finding("damaged", name, problem, way_out)
    if is_cut:
        return recorded, Finding("damaged", name, "cut off in its last line", way_out)
    return config, Finding("ok", name, "readable and valid")


def _ledger(layout: RunLayout) -> tuple[tuple[Entry, ...] | None, list[Finding]]:
    name = layout.relative(layout.ledger)
    restore = "Restore it from a backup."
    if (fault := ledger_fault(layout)) is not None:
        if is_free(layout.root):
            state = f"{fault}: no run has begun here, and its name is free"
            return None, [Finding("notice", name, state)]
        return None, [Finding("damaged", name, fault, ledger_way_out(layout))]
    try:
        entries = Ledger.read(layout.ledger)
        is_torn = not layout.ledger.read_bytes().endswith(b"\n")
    except (DamagedRunError, OSError) as error:
        return None, [damage(layout, error, layout.ledger, restore)]
    if History(entry.event for entry in entries).started is None:
        way_out = ledger_way_out(layout)
        problem = "not the event that a ledger begins with"
        return None, [Finding("damaged", f"{name}, line 1", problem, way_out)]
    state = f"{counted(len(entries), 'event')}, every line intact"
    findings = [Finding("ok", name, state)]
    if is_torn:
        line = f"{name}, line {len(entries) + 1}"
        findings.append(Finding("notice", line, "cut off, as by a kill", "A resume drops it."))
    return entries, findings
