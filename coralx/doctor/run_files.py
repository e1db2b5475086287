"""What can be read of a run folder: its config and its ledger, and what is to be said of the two.

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
from coralx.storage.layout import RunLayout, is_free, ledger_fault, way_out_without_ledger
from coralx.storage.ledger import Entry, Ledger
from coralx.text import counted

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
    if history is not None and config is not None:
        try:
            require_consistent(history, config, layout)
        except DamagedRunError as error:
            findings.append(damage(layout, error, layout.ledger, ""))
            return Readable(config, None, None), [of_config, *findings]
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


def recorded_config(history: History, layout: RunLayout) -> Config | None:
    """The config under which the run was last taken up, by its ledger; None where an earlier
    version did not record it. Raises DamagedRunError for one that is none."""
    if history.recorded_config is None:
        return None
    try:
        return parse_config(dict(history.recorded_config), str(layout.ledger))
    except ConfigError as error:
        raise DamagedRunError(f"{layout.ledger}: records no config: {error.problems[0]}") from None


def _config(layout: RunLayout, history: History | None) -> tuple[Config | None, Finding]:
    name = layout.relative(layout.config)
    recorded = recorded_config(history, layout) if history else None
    way_out = "Put the config there that the run began with."
    if recorded is not None:
        way_out = "Delete it: a resume writes it again, from the ledger."
    if not layout.config.is_file():
        if recorded is None:
            return None, Finding("damaged", name, "missing", way_out)
        return recorded, Finding("notice", name, "missing", "A resume takes it from the ledger.")
    try:
        config = load_config(layout.config, resolved=True)
        is_cut = not layout.config.read_text(encoding="utf-8").endswith("\n")
    except ConfigError as error:
        return recorded, Finding("damaged", name, "; ".join(error.problems), way_out)
    if recorded is not None and (changed := contradictions(recorded, config)):
        told = f"not the config that the run began with, in {', '.join(changed)}"
        return recorded, Finding("damaged", name, told, way_out)
    if is_cut:
        return recorded, Finding("damaged", name, "cut off in its last line", way_out)
    return config, Finding("ok", name, "readable and valid")


def _ledger(layout: RunLayout) -> tuple[tuple[Entry, ...] | None, list[Finding]]:
    name = layout.relative(layout.ledger)
    restore = "Restore it from a backup."
    if (fault := ledger_fault(layout)) is not None:
        if is_free(layout.root):
            told = f"{fault}: no run has begun here, and its name is free"
            return None, [Finding("notice", name, told)]
        return None, [Finding("damaged", name, fault, way_out_without_ledger(layout))]
    try:
        entries = Ledger.read(layout.ledger)
        is_torn = not layout.ledger.read_bytes().endswith(b"\n")
    except (DamagedRunError, OSError) as error:
        return None, [damage(layout, error, layout.ledger, restore)]
    if History(entry.event for entry in entries).started is None:
        told, way_out = "does not begin with its first event", way_out_without_ledger(layout)
        return None, [Finding("damaged", f"{name}, line 1", told, way_out)]
    told = f"{counted(len(entries), 'event')}, every line as it was written"
    findings = [Finding("ok", name, told)]
    if is_torn:
        torn = f"{name}, line {len(entries) + 1}"
        findings.append(Finding("notice", torn, "torn off, as by a kill", "A resume drops it."))
    return entries, findings
