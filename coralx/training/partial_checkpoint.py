"""What a stage has trained so far, kept on the way: after a kill, training continues from there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from peft import PeftModel
from pydantic import ValidationError

from coralx.errors import DamagedRunError
from coralx.records.jobs import Job
from coralx.records.results import Inheritance
from coralx.records.serialization import from_json, to_json
from coralx.system.files import canonical_json, verify_folder
from coralx.training import adapters
from coralx.training.initial_weights import StageStart
from coralx.training.loop import Trace, Trainer

PATHS = ("checkpoint", "partial", "resume_from", "inherit_from", "blend_from")
"""The fields of a job that change when a run folder is moved."""

MEASURED = ("losses", "norms", "skipped", "tokens", "seconds", "micro_batch")
"""What of a trace is kept; its divergence is not, as training ends with one."""


def keep(trainer: Trainer, job: Job, start: StageStart, trace: Trace) -> None:
    """Write adapter, optimizer and trace to the job's partial checkpoint, whole or not at all."""
    if job.partial is None:
        return
    state = {
        **trainer.scale_state,
        "job": _digest(job),
        "trace": {name: getattr(trace, name) for name in MEASURED},
        "inherited_steps": start.inherited_steps,
        "eval_seconds": start.eval_seconds,
        "inheritance": asdict(start.inheritance) if start.inheritance else None,
    }
    name = adapters.name_of(job.genome)
    adapters.save(Path(job.partial), trainer.model, name, trainer.optimizer, state)


def take_up(model: PeftModel, job: Job) -> tuple[StageStart, Trace] | None:
    """Load the job's partial checkpoint into its adapter, which is fresh and the active one; how
    the stage began and what it has trained. None where there is none, where it is damaged, or where
    it is of another job: the stage is then trained from its start."""
    folder = Path(job.partial) if job.partial is not None else None
    state = _read(folder) if folder is not None else None
    if folder is None or state is None or state.get("job") != _digest(job):
        return None
    try:
        inheritance = state["inheritance"]
        start = StageStart(
            inherited_steps=state["inherited_steps"],
            moments=folder,
            scale_from=folder,
            inheritance=from_json(Inheritance, inheritance) if inheritance else None,
            eval_seconds=state["eval_seconds"],
        )
        kept = {"skipped": [], **state["trace"]}  # which earlier versions did not keep
        trace = Trace(**{name: kept[name] for name in MEASURED})
    except (KeyError, TypeError, ValidationError):  # of another version
        return None
    adapters.put(model, adapters.name_of(job.genome), adapters.read(folder).weights)
    return start, trace


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        verify_folder(folder)
        state: dict[str, Any] = json.loads((folder / adapters.STATE).read_text(encoding="utf-8"))
    except (DamagedRunError, OSError, ValueError):
        return None
    return state


def _digest(job: Job) -> str:
    """Changes with whatever decides what the job trains."""
    # How many rows fit into memory may differ from attempt to attempt; the batch stays the same.
    decisive = {f.name for f in fields(job)} - {*PATHS, "micro_batch"}
    values = {name: value for name, value in to_json(job).items() if name in decisive}
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()
