"""Whether checkpoints, adapters and scores are as they were written, what to do where they are not,
and which process is at work on the run. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coralx.doctor.run_files import Finding, ReadableRun, damage
from coralx.engine.checkpoint_retention import needed_checkpoints
from coralx.engine.state import RunState
from coralx.errors import DamagedRunError
from coralx.metrics.row_scores import scores_are_intact
from coralx.records.subjects import id_of, title_of
from coralx.storage.checkpoints import is_intact, is_of_checkpoint
from coralx.storage.layout import RunLayout
from coralx.storage.lock import holder
from coralx.system.files import verify_folder


def checkpoints(layout: RunLayout, run: ReadableRun) -> Iterator[Finding]:
    """Every checkpoint against its manifest; those that are needed and missing."""
    folders = [p for p in sorted(layout.checkpoints.glob("*/*")) if p.is_dir()]
    present = {(p.parent.name, p.name): p for p in folders if not layout.is_half_written(p)}
    intact = 0
    for (genome, _), folder in present.items():
        try:
            verify_folder(folder)
            intact += 1
        except (DamagedRunError, OSError) as error:
            yield damage(layout, error, folder, _train_again(run, genome))
    needed = _needed(run)
    for genome, stage in sorted(needed - present.keys()):
        name = layout.relative(layout.checkpoint(genome, stage))
        problem = "missing, though the ledger has its result"
        yield Finding("damaged", name, problem, _train_again(run, genome))
    name = layout.relative(layout.checkpoints)
    if present or needed:
        yield Finding("ok", name, f"{intact} of {len(present.keys() | needed)} intact")


def partials(layout: RunLayout) -> Iterator[Finding]:
    """What stages under way have saved so far; a resume can do without each."""
    for folder in sorted(layout.partials.glob("*/*")):
        if layout.is_half_written(folder) or not folder.is_dir():
            continue
        name = layout.relative(folder)
        try:
            verify_folder(folder)
            yield Finding("ok", name, "intact: a resume goes on from it")
        except DamagedRunError:
            yield Finding(
                "notice", name, "damaged", "A resume trains the stage from its beginning."
            )


def _needed(run: ReadableRun) -> set[tuple[str, str]]:
    """The checkpoints that must be there; none where config or ledger cannot be read."""
    if run.config is None or run.history is None:
        return set()
    history = run.history
    # an asynchronous search that goes on has not chosen the survivors of its newest generation
    is_exhausted = max(history.generations, default=-1) in history.populations
    needed = needed_checkpoints(RunState(run.config, history), is_exhausted=is_exhausted)
    written = dict(history.results)
    for (subject, stage), result in history.trained_beside.items():
        written[str(id_of(subject)), stage] = result
    return {pair for pair in needed if written[pair].checkpoint is not None}


def _train_again(run: ReadableRun, genome: str) -> str:
    derived = _is_derived(run, genome)
    if run.history is None or run.history.completed is None:
        if derived:
            return "A resume derives it again."
        return "A resume trains this stage again from the one before."
    if genome in run.history.completed.front:
        made = "derives" if derived else "trains"
        return f"best/ has its adapter; if that is missing too, a resume {made} it again."
    return "Nothing to do: the run is complete and does not need it."


def _is_derived(run: ReadableRun, genome: str) -> bool:
    """Whether it was made without training."""
    known = run.history.genomes.get(genome) if run.history is not None else None
    return known is not None and known.derived is not None


def best_adapters(layout: RunLayout, run: ReadableRun) -> Iterator[Finding]:
    """The adapters in `best/`: intact, equal to their checkpoints, and those of the front."""
    folders = sorted(p for p in layout.best.glob("*") if not layout.is_half_written(p))
    for folder in folders:
        yield _adapter(layout, run, folder)
    history = run.history
    if history is None or run.config is None or history.started is None:
        return
    front = RunState(run.config, history).front()
    is_over = history.completed is not None
    for folder in folders:
        if folder.name not in front:
            state = "no longer on the front" if is_over else "left from an earlier front"
            yield Finding("notice", layout.relative(folder), state, "A resume removes it.")
    if not is_over or history.started.facts.backend == "simulated":
        return  # best/ is filled when the run ends, and stays empty in a simulation
    for genome in set(front) - {folder.name for folder in folders}:
        name = layout.relative(layout.best_adapter(genome))
        yield Finding("damaged", name, "missing", _copy_again(layout, run, genome))


def _adapter(layout: RunLayout, run: ReadableRun, folder: Path) -> Finding:
    way_out = _copy_again(layout, run, folder.name)
    try:
        verify_folder(folder)
    except (DamagedRunError, OSError) as error:
        return damage(layout, error, folder, way_out)
    name = layout.relative(folder)
    source = _source(layout, run, folder.name)
    if (
        source is not None
        and is_intact(layout, folder.name, source.name)
        and not is_of_checkpoint(folder, source)
    ):
        return Finding("damaged", name, "differs from its checkpoint's adapter", way_out)
    return Finding("ok", name, "intact")


def _source(layout: RunLayout, run: ReadableRun, genome: str) -> Path | None:
    if run.config is None:
        return None
    return layout.checkpoint(genome, run.config.hyperband_config.training_stages[-1].name)


def _copy_again(layout: RunLayout, run: ReadableRun, genome: str) -> str:
    source = _source(layout, run, genome)
    if source is not None and is_intact(layout, genome, source.name):
        return "A resume copies it again from its checkpoint."
    if _is_derived(run, genome):
        return "A resume derives it again, then copies it."
    return "A resume trains its last stage again, then copies it."


def scores(layout: RunLayout, run: ReadableRun) -> Iterator[Finding]:
    """The files of row scores, against the checksums in the ledger."""
    history = run.history
    measured = history.measurements.values() if history else ()
    kept = {m.genome: m.scores for m in measured if m.scores}
    intact = 0
    for name, digest in kept.items():
        path = layout.scores(name)
        if scores_are_intact(path, digest):
            intact += 1
            continue
        problem = "its checksum differs from the ledger" if path.is_file() else "missing"
        way_out = f"A resume measures {title_of(name)} again."
        if history and history.compared is not None:
            way_out = "Nothing to do: the ledger has the comparisons made with it."
        yield Finding("damaged", layout.relative(path), problem, way_out)
    if kept:
        yield Finding("ok", layout.relative(layout.test_scores), f"{intact} of {len(kept)} intact")


# -- who is at work --------------------------------------------------------------------------------


def ownership(layout: RunLayout) -> Iterator[Finding]:
    """Which process owns the run, and which files are incomplete."""
    owner = holder(layout)
    name = layout.relative(layout.owner)
    if owner is not None:
        again = "Files that it is writing may look incomplete: check again once it has ended."
        yield Finding("notice", name, f"the run is in progress, in use by {owner}", again)
    elif layout.owner.exists():
        state = "left by a process that no longer owns the run"
        yield Finding("notice", name, state, "Harmless: a resume replaces it.")
    for path in layout.half_written():
        way_out = "It is being written." if owner else "A resume removes it."
        yield Finding("notice", layout.relative(path), "incomplete", way_out)
