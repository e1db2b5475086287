"""What a job's adapter starts from: fresh weights, its own last stage, a parent, or two of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from coralx.records.genomes import Blend
from coralx.records.jobs import Job
from coralx.records.results import BlendTrial, Inheritance
from coralx.rng import generator
from coralx.training import adapters
from coralx.training.checkpoint_crossover import blend
from coralx.training.resize import Transfer, Update, Weights, transfer

Loss = Callable[[], float | None]
"""Scores the adapter as it stands on the stage's validation sample; None where undefined."""


@dataclass(frozen=True)
class StageStart:
    """How a stage began."""

    inherited_steps: int
    """Those of the lineage before the genome's birth."""
    moments: Path | None = None
    """The checkpoint whose optimizer state goes with the weights; None: it begins anew."""
    scale_from: Path | None = None
    """The genome's own checkpoint, whose loss scale goes on; None: it begins anew."""
    factor: float = 1.0
    """What B was multiplied by since that checkpoint."""
    inheritance: Inheritance | None = None
    """How the weights carry a parent's function; None: they are no parent's."""
    eval_seconds: float = 0.0
    """Spent on choosing between two starts."""


def begin(model: PeftModel, job: Job, seed: int, loss: Loss) -> StageStart:
    """Load what the job starts from into its adapter, which is fresh and the active one."""
    if job.resume_from is not None:
        source = Path(job.resume_from)
        factor = _load_own(model, job, adapters.read(source))
        return StageStart(job.inherited_steps, source, scale_from=source, factor=factor)
    if job.inherit_from is None:
        return StageStart(job.inherited_steps)
    newborn = _Newborn(model, job)
    start = newborn.from_parent()
    if job.genome.blend is None or job.blend_from is None:  # it has one parent
        return start
    rng = generator(seed, "blend", job.genome.generation, job.genome.id)
    return newborn.from_both(job.genome.blend, Path(job.blend_from), start, rng, loss)


def _load_own(model: PeftModel, job: Job, saved: Update) -> float:
    """Load the genome's own weights, at unchanged function where its rank grows now; what B was
    multiplied by."""
    name = adapters.name_of(job.genome)
    scaling = adapters.scaling_of(model, name)
    fresh = adapters.weights(model, name)
    if saved.scaling == scaling and _shapes(saved.weights) == _shapes(fresh):
        adapters.put(model, name, saved.weights)
        return 1.0
    fitted = transfer(saved.weights, saved.scaling, fresh, scaling)
    adapters.put(model, name, fitted.weights)
    return fitted.factor


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


class _Newborn:
    """A fresh adapter, and the better parent's weights fitted to its shape."""

    def __init__(self, model: PeftModel, job: Job) -> None:
        self._model, self._job = model, job
        self._name = adapters.name_of(job.genome)
        self._fresh = adapters.weights(model, self._name)
        self._parent = adapters.read(Path(str(job.inherit_from)))
        self._alone = self._fitted(self._parent)

    def _fitted(self, update: Update) -> Transfer:
        scaling = adapters.scaling_of(self._model, self._name)
        return transfer(update.weights, update.scaling, self._fresh, scaling)

    def _load(self, fitted: Transfer) -> Inheritance:
        """Load the weights; what became of the function that they carry."""
        adapters.put(self._model, self._name, fitted.weights)
        return Inheritance(
            parent_rank=self._parent.rank,
            error=fitted.error,
            dropped=_kinds(fitted.dropped),
            added=_kinds(fitted.added),
        )

    def from_parent(self) -> StageStart:
        """Start from the better parent alone."""
        job = self._job
        return StageStart(
            inherited_steps=job.inherited_steps,
            moments=Path(str(job.inherit_from)) if job.inherit_optimizer else None,
            factor=self._alone.factor,
            inheritance=self._load(self._alone),
        )

    def from_both(
        self, recipe: Blend, other: Path, start: StageStart, rng: np.random.Generator, loss: Loss
    ) -> StageStart:
        """Start from both parents where that has the lower loss; else, also on a tie, as `start`,
        which is loaded now. No parent's moments go with a blend's weights: its optimizer is new."""
        both, share = blend(recipe.kind, self._parent, adapters.read(other), rng)
        parent_loss, before = _timed(loss)  # of the better parent's weights, as loaded by `start`
        inheritance = self._load(self._fitted(both))
        blend_loss, after = _timed(loss)
        kept = blend_loss is not None and (parent_loss is None or blend_loss < parent_loss)
        if kept:
            start = StageStart(self._job.blended_steps)
        else:
            inheritance = self._load(self._alone)
        trial = BlendTrial(recipe.kind, recipe.other, share, parent_loss, blend_loss, kept)
        return replace(
            start, inheritance=replace(inheritance, blend=trial), eval_seconds=before + after
        )


def _timed(loss: Loss) -> tuple[float | None, float]:
    """A loss, and the seconds that scoring took."""
    began = time.monotonic()
    return loss(), time.monotonic() - began


def _kinds(stems: Sequence[str]) -> tuple[str, ...]:
    """The last parts of module names, each once."""
    return tuple(sorted({stem.rsplit(".", 1)[-1] for stem in stems}))
