"""One job trained, evaluated and saved: the adapter of its genome is in the model already."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import PeftModel

from coralx.backends.protocol import Beat, Paused, Report
from coralx.config.schema import Config
from coralx.data.order import subset_size
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Job
from coralx.records.results import Divergence, StageResult
from coralx.training import adapters, peak_memory
from coralx.training import partial_checkpoint as partial
from coralx.training.evaluation import Evaluation
from coralx.training.frozen_prefix import FrozenPrefix
from coralx.training.inference import mean_loss
from coralx.training.initial_weights import StageStart, begin
from coralx.training.loop import Trace, Trainer
from coralx.training.stage_result import result_of, signals_of
from coralx.training.task_data import Material
from coralx.training.trained_head import train_head

UNTUNED_ROWS = 64
"""Rows of the data order by which the untuned base's training loss is measured."""

Remarks = tuple[str, ...]


@dataclass(frozen=True)
class UnderWay:
    """A job whose adapter is in the model."""

    job: Job
    start: StageStart
    trace: Trace
    trainer: Trainer
    steps_before: int
    """Those that an earlier attempt has trained."""
    seconds_before: float
    """Spent on those."""
    read_seconds: float
    """Spent on reading what the job starts from."""

    @property
    def seconds(self) -> float:
        """Spent on the steps of this attempt."""
        return self.trace.seconds - self.seconds_before

    def keep(self) -> None:
        """Keep what has been trained so far."""
        partial.keep(self.trainer, self.job, self.start, self.trace)

    def keep_if_new(self) -> None:
        """Keep what this attempt has trained, unless it is worth nothing."""
        if len(self.trace.losses) > self.steps_before and self.trace.divergence is None:
            self.keep()


@dataclass
class StageTraining:
    """Trains one job after another on the base that was loaded."""

    config: Config
    model: PeftModel
    material: Material
    evaluation: Evaluation
    autocast: Callable[[], AbstractContextManager[Any]]
    """In which training runs its forward pass."""
    new_scaler: Callable[[], torch.amp.GradScaler]
    """A fresh one for the losses of a stage."""
    scoring: Callable[[], AbstractContextManager[Any]]
    """In which scores are computed."""
    notes_on: Callable[[Genes], Remarks]
    """What the backend remarks on how such a genome is trained."""
    prefix: FrozenPrefix
    """What lies below the lowest adapted layer."""
    untuned_loss: float | None = None
    """The untuned base's training loss; None: not measured."""

    def measure_untuned_loss(self) -> None:
        """Measure, once, the untuned base's mean training loss over the first rows of the data
        order. The model's active adapter is one that was never trained."""
        if self.untuned_loss is None:
            self.untuned_loss = self.training_loss(UNTUNED_ROWS)

    def training_loss(self, rows: int) -> float:
        """The active adapter's mean training loss over so many rows, the first of the data order,
        as the model stands: without dropout."""
        batches = self.material.batches(self.config.training.batch_size)
        chosen = batches.order(0, len(self.material.train.ids))[:rows].tolist()
        return mean_loss(self.model, self.material.task, self.material.train, chosen, self.autocast)

    def run(self, job: Job, report: Report, beat: Beat, began: float) -> StageResult:
        """Train the active adapter, which is fresh, or where the genome adapts nothing, its head
        alone. `began` is when work on the job did, by the monotonic clock."""
        if job.genome.genes.adapts_base:
            return self._train_adapter(job, report, beat, began)
        return self._train_head(job, report, beat, began)

    def _train_adapter(self, job: Job, report: Report, beat: Beat, began: float) -> StageResult:
        """Train, evaluate and save, from the partial checkpoint on if there is one; where the beat
        raises Paused, leave such a one and pass it on."""
        under_way = self.begin(job, beat)
        trainer, trace = under_way.trainer, under_way.trace
        try:
            minutes = self.config.runtime.checkpoint_minutes
            peak_memory.reset()
            trainer.run(job, trace, report, beat, under_way.keep, 60.0 * minutes)
            trace.peak_bytes = peak_memory.peak_bytes()
            return self.complete(under_way, beat, began)
        except Paused:
            under_way.keep_if_new()
            raise

    def begin(self, job: Job, beat: Beat) -> UnderWay:
        """Load what the job starts from into the active adapter, which is fresh: its partial
        checkpoint, if there is one."""
        reading = time.monotonic()
        start, trace = partial.take_up(self.model, job) or self._fresh(job, beat)
        read_seconds = time.monotonic() - reading - start.eval_seconds
        trainer = self.trainer(job, start)
        return UnderWay(job, start, trace, trainer, len(trace.losses), trace.seconds, read_seconds)

    def complete(self, under_way: UnderWay, beat: Beat, began: float) -> StageResult:
        """Evaluate and save the active adapter, whose steps are taken. `began` is when work on the
        job did, by the monotonic clock."""
        job, start, trace = under_way.job, under_way.start, under_way.trace
        trained = time.monotonic()
        metrics, remarks = self._evaluate(job, trace, beat)
        evaluated = time.monotonic()
        trainer = under_way.trainer
        self._save(job, trace, start, trainer.optimizer, trainer.scale_state)
        saved = time.monotonic()
        evaluation = start.eval_seconds + evaluated - trained
        # What was neither steps (of this attempt) nor evaluation: weights in, checkpoints out.
        overhead = saved - began - under_way.seconds - evaluation
        files = under_way.read_seconds + saved - evaluated
        notes = (*self.notes_on(job.genome.genes), *self.prefix.remarks, *remarks)
        return result_of(job, start, trace, metrics, notes, evaluation, overhead, files)

    def _train_head(self, job: Job, report: Report, beat: Beat, began: float) -> StageResult:
        """Fit the head alone on the frozen base, evaluate and save it."""
        name, start = adapters.name_of(job.genome), StageStart(0)
        fitted = train_head(self.model, name, self.material, self.scoring, job, report, beat)
        trained = time.monotonic()
        divergence = None if fitted.is_finite else Divergence(len(fitted.losses), "loss")
        trace = Trace(list(fitted.losses), seconds=trained - began, divergence=divergence)
        metrics, remarks = self._evaluate(job, trace, beat)
        evaluation = time.monotonic() - trained
        self._save(job, trace, start)
        overhead = time.monotonic() - trained - evaluation
        notes = (*fitted.notes, *remarks)
        return result_of(job, start, trace, metrics, notes, evaluation, overhead, overhead)

    def _fresh(self, job: Job, beat: Beat) -> tuple[StageStart, Trace]:
        """How the stage begins, with nothing trained yet."""

        def loss() -> float | None:
            return self.evaluation.loss(job.eval_limit, beat)

        start = begin(self.model, job, self.config.experiment.seed, loss)
        return start, Trace(micro_batch=job.micro_batch)

    def trainer(self, job: Job, start: StageStart) -> Trainer:
        """What takes the steps of a job: the active adapter, its optimizer, and the rows."""
        genes, train = job.genome.genes, self.material.train
        parameters = adapters.trainable(self.model)
        optimizer = adamw(
            list(parameters.values()), genes.learning_rate, genes.weight_decay, self.model.device
        )
        if start.moments is not None:
            name = adapters.name_of(job.genome)
            adapters.load_optimizer(optimizer, parameters, name, start.moments, start.factor)
        scaler = self.new_scaler()
        if start.scale_from is not None:
            _go_on_with_scale(scaler, start.scale_from)
        batches = self.material.batches(genes.batch_size)
        subset = subset_size(len(train.ids), job.data_fraction)
        return Trainer(
            model=self.model,
            parameters=list(parameters.values()),
            optimizer=optimizer,
            task=self.material.task,
            data=train,
            rows_of=lambda step: batches.rows(step, subset),
            settings=self.config.training,
            autocast=self.autocast,
            scaler=scaler,
            frozen=self.prefix.modules,
            untuned_loss=self.untuned_loss,
        )

    def _evaluate(
        self, job: Job, trace: Trace, beat: Beat
    ) -> tuple[dict[str, float | None], Remarks]:
        """The stage's figures (predictions on validation, adapter, training signals), and remarks
        on them. None of what diverged; scores that are not finite are a divergence, too, which then
        stands in the trace."""
        if trace.divergence is not None:
            return {}, ()
        costs = self.costs(job.genome, job.trained_shape.rank)
        if not job.is_scored:
            return {**costs, **signals_of(job, trace)}, ()
        figures, remarks = self.evaluation.validated_with_remarks(
            job.eval_limit, beat, job.predictions
        )
        if figures is None:
            trace.divergence = Divergence(job.last_step, "score")
            return {}, ()
        return {**figures, **costs, **signals_of(job, trace)}, remarks

    def costs(self, genome: Genome, rank: int) -> dict[str, float | None]:
        """What the genome's finished adapter costs, whatever its rank is now: that is what its
        skill is weighed against, in early stages too."""
        growth = Fraction(genome.genes.rank, rank)
        return adapters.costs(self.model, adapters.name_of(genome), growth)

    def _save(
        self,
        job: Job,
        trace: Trace,
        start: StageStart,
        optimizer: torch.optim.Optimizer | None = None,
        scale_state: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write the job's checkpoint, if it wants one; what diverged leaves none."""
        if job.checkpoint is None or trace.divergence is not None:
            return
        state = {
            **scale_state,
            "genome": job.genome.id,
            "stage": job.stage,
            "step": job.last_step,
            "inherited_steps": start.inherited_steps,
            "horizon": {
                "total_steps": job.horizon.total_steps,
                "warmup_steps": job.horizon.warmup_steps,
            },
        }
        name = adapters.name_of(job.genome)
        adapters.save(Path(job.checkpoint), self.model, name, optimizer, state)


def adamw(
    parameters: Sequence[torch.nn.Parameter], rate: float, decay: float, device: torch.device
) -> torch.optim.AdamW:
    """The optimizer, on CUDA with one kernel for all parameters. Elsewhere that would round
    otherwise, and gain little."""
    fused = True if device.type == "cuda" else None
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=fused)


def _go_on_with_scale(scaler: torch.amp.GradScaler, checkpoint: Path) -> None:
    """Let losses be scaled as when the checkpoint was left, which was trained in any precision."""
    state = json.loads((checkpoint / adapters.STATE).read_text(encoding="utf-8"))
    if "scaler" in state:
        scaler.load_state_dict(state["scaler"])
