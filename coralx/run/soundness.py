"""Whether the files of a run are as they were written, and what is to be done where they are not.

Everything here only reads: the folder stays as it is. Reports are judged by `report.soundness`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coralx.config import Config, load_config
from coralx.config.loading import parse_yaml
from coralx.config.modes import mode_of
from coralx.errors import ConfigError, DamagedRunError
from coralx.files import manifest_of, verify_folder
from coralx.objectives.scores import is_whole
from coralx.packages import installed_version
from coralx.run.checkpoints import ADAPTER_FILES, is_intact
from coralx.run.finale import front_of
from coralx.run.history import History, title_of
from coralx.run.keeping import needed_checkpoints
from coralx.run.layout import RunLayout
from coralx.run.ledger import Entry, Ledger
from coralx.run.lock import holder

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


def _damage(
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
        return None, [_damage(layout, error, layout.ledger, way_out)]
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


# -- checkpoints, adapters, scores -----------------------------------------------------------------


def checkpoints(layout: RunLayout, run: Readable) -> Iterator[Finding]:
    """Every checkpoint against its manifest; those that are needed and are not there."""
    temporary = set(layout.half_written())
    folders = [p for p in sorted(layout.checkpoints.glob("*/*")) if p.is_dir()]
    present = {(p.parent.name, p.name): p for p in folders if p not in temporary}
    whole = 0
    for (genome, _), folder in present.items():
        try:
            verify_folder(folder)
            whole += 1
        except (DamagedRunError, OSError) as error:
            yield _damage(layout, error, folder, _train_again(run, genome))
    needed = _needed(run)
    for genome, stage in sorted(needed - present.keys()):
        name = layout.relative(layout.checkpoint(genome, stage))
        told = "missing, though the ledger has its result"
        yield Finding("damaged", name, told, _train_again(run, genome))
    name = layout.relative(layout.checkpoints)
    if present or needed:
        yield Finding("ok", name, f"{whole} of {len(present | dict.fromkeys(needed))} whole")


def _needed(run: Readable) -> set[tuple[str, str]]:
    """The checkpoints that must be there, as far as that can be told."""
    if run.config is None or run.history is None:
        return set()
    history = run.history
    # an asynchronous search that goes on has not chosen the survivors of its newest generation
    is_exhausted = max(history.generations, default=-1) in history.populations
    needed = needed_checkpoints(run.config, history, is_exhausted=is_exhausted)
    written = {**history.results, **history.beside}
    return {pair for pair in needed if written[pair].checkpoint is not None}


def _train_again(run: Readable, genome: str) -> str:
    if run.history is None or run.history.completed is None:
        return "A resume trains this stage again from the one before."
    if genome in run.history.completed.front:
        return "The run is complete: what best/ holds of it is enough to use it."
    return "The run is complete and needs it no more."


def handed_over(layout: RunLayout, run: Readable) -> Iterator[Finding]:
    """The adapters in `best/`: whole, equal to their checkpoints, and those of the front."""
    folders = sorted(p for p in layout.best.glob("*") if p not in layout.half_written())
    for folder in folders:
        yield _adapter(layout, run, folder)
    history = run.history
    if history is None or run.config is None or history.started is None:
        return
    last = run.config.hyperband_config.training_stages[-1].name
    front = front_of(run.config, history, last)
    is_over = history.completed is not None
    for folder in folders:
        if folder.name not in front:
            told = "not on the front any more" if is_over else "was handed over at an earlier time"
            yield Finding("notice", layout.relative(folder), told, "A resume removes it.")
    if not is_over or history.started.facts.backend == "simulated":
        return  # it is handed over at the end; a simulation has nothing to hand over
    for genome in set(front) - {folder.name for folder in folders}:
        name = layout.relative(layout.best_adapter(genome))
        yield Finding("damaged", name, "missing", _copy_again(layout, run, genome))


def _adapter(layout: RunLayout, run: Readable, folder: Path) -> Finding:
    way_out = _copy_again(layout, run, folder.name)
    try:
        verify_folder(folder)
        handed = manifest_of(folder)
    except (DamagedRunError, OSError) as error:
        return _damage(layout, error, folder, way_out)
    name = layout.relative(folder)
    source = _source(layout, run, folder.name)
    if source is not None and is_intact(layout, folder.name, source.name):
        trained = manifest_of(source)
        if handed != {file: trained.get(file) for file in ADAPTER_FILES}:
            return Finding("damaged", name, "not the adapter of its checkpoint", way_out)
    return Finding("ok", name, "whole")


def _source(layout: RunLayout, run: Readable, genome: str) -> Path | None:
    if run.config is None:
        return None
    return layout.checkpoint(genome, run.config.hyperband_config.training_stages[-1].name)


def _copy_again(layout: RunLayout, run: Readable, genome: str) -> str:
    source = _source(layout, run, genome)
    if source is not None and is_intact(layout, genome, source.name):
        return "A resume copies it anew from its checkpoint."
    return "Its checkpoint is not whole either: a new run of the same config and seed trains it."


def scores(layout: RunLayout, run: Readable) -> Iterator[Finding]:
    """The files of scores by row, by the checksums that the ledger has."""
    history = run.history
    kept = {n: m.scores for n, m in history.measurements.items() if m.scores} if history else {}
    whole = 0
    for name, digest in kept.items():
        path = layout.scores(name)
        if is_whole(path, digest):
            whole += 1
            continue
        told = "its checksum is not the ledger's" if path.is_file() else "missing"
        way_out = f"A resume measures {title_of(name)} again."
        if history and history.compared is not None:
            way_out = "The ledger holds what was compared by it; nothing else needs it."
        yield Finding("damaged", layout.relative(path), told, way_out)
    if kept:
        yield Finding("ok", layout.relative(layout.test_scores), f"{whole} of {len(kept)} whole")


# -- who is at work --------------------------------------------------------------------------------


def at_work(layout: RunLayout) -> Iterator[Finding]:
    """Who owns the run, and what was or is being written."""
    owner = holder(layout)
    name = layout.relative(layout.owner)
    if owner is not None:
        again = "What it is writing may look unfinished here: look again once it has ended."
        yield Finding("notice", name, f"the run is in use by {owner}", again)
    elif layout.owner.exists():
        told = "left by a process that holds the run no more"
        yield Finding("notice", name, told, "Harmless; a resume replaces it.")
    for path in layout.half_written():
        way_out = "It is being written." if owner else "A resume removes it."
        yield Finding("notice", layout.relative(path), "half-written", way_out)
