"""Training adapters on a frozen base with torch: what every backend that does so has in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper

from coralx.backends.protocol import Beat, Paused, Report, Say, unheard
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.data.classes import classes_of
from coralx.data.order import subset_size
from coralx.data.splits import load_all
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Job, MeasureJob
from coralx.records.results import Divergence, Measurement, StageResult
from coralx.records.run_facts import REVISION, Facts
from coralx.training import adapters
from coralx.training import partial_checkpoint as partial
from coralx.training import user_functions as functions
from coralx.training.base_errors import explaining, require_known_tokens
from coralx.training.base_fingerprint import of_base
from coralx.training.base_model import Base, check_quantization, require_causal, source_of
from coralx.training.evaluation import Evaluation, undefined
from coralx.training.footprint import footprint_of
from coralx.training.inference import mean_loss
from coralx.training.initial_weights import Start, begin
from coralx.training.loop import Trace, Trainer
from coralx.training.out_of_memory import free, reason_of, refusing
from coralx.training.padding_check import disagreements
from coralx.training.precision import autocast, base_dtype, faster_precision, settled_precision
from coralx.training.stage_result import result_of, signals_of
from coralx.training.task_data import Material
from coralx.training.trained_head import train_head
from coralx.training.trial_batch import Trial

TEMPLATE = "default"
"""The first adapter, which wraps the base; never trained. Genomes are added beside it."""

UNTUNED_ROWS = 64
"""Rows of the data order by which the untuned base's training loss is measured."""


class AdaptingBackend(ABC):
    """One base model, and beside its template one adapter at a time: that of the job."""

    name: str

    def __init__(self) -> None:
        self.base_loads = 0
        self._untuned_loss: float | None = None

    @abstractmethod
    def load(
        self,
        config: Config,
        labels: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        say: Say,
    ) -> Base:
        """The base, its weights on `device` in `dtype`.

        Raises ConfigError where it cannot be loaded or adapted.
        """

    @abstractmethod
    def wrap(self, config: Config, base: Base) -> PeftModel:
        """The base with its template adapter."""

    def notes_on(self, genes: Genes) -> tuple[str, ...]:
        """What is worth saying about how such a genome is trained here."""
        return ()

    def devices(self) -> tuple[str, int]:
        device = _device().type
        return device, torch.cuda.device_count() if device == "cuda" else 1

    def prepare(
        self,
        config: Config,
        precision: str | None,
        threads: int,
        say: Say,
        revision: int = REVISION,
    ) -> Facts:
        torch.set_num_threads(threads)
        self._config = config
        self._device = _device()
        check_quantization(config, self._device)
        files = {source.train: None for source in config.data.sources.values()}
        say(f"reading {', '.join(map(str, files))}")
        examples = load_all(config.data, config.experiment.seed, config.model.task, revision)
        labels = [label for read in examples.values() for label in read.labels]
        say(f"loading {config.model.base} on {self._device}")
        settled = settled_precision(config, precision, self._device)
        dtype = base_dtype(config, settled and settled[0], self._device)
        self._base = self.load(config, labels, self._device, dtype, say)
        self.base_loads += 1
        self._is_whole = dtype == torch.float32
        self._material = Material(config, examples, self._base, self._device, revision)
        require_known_tokens(config, self._base, self._material)
        footprint = footprint_of(
            config,
            self._base.model,
            self._base.head,
            self._device,
            precision=settled[0] if settled else "fp32",
            fused_loss=self._base.fused_loss,
        )
        with explaining(config, "an adapter"):
            self._model = self.wrap(config, self._base)
        self._evaluation = Evaluation(
            config, self._model, self._material, self._scoring, self._device
        )
        if config.model.task in CAUSAL:
            with self._scoring(), explaining(config, "the untuned base"):
                require_causal(config, self._model, len(self._base.tokenizer))
        self._precision = settled[0] if settled else "fp32"
        warnings = self._trial().run(footprint, say) if precision is None else ()
        self._precision, reason = settled or self._faster_precision(say)
        return Facts(
            backend=self.name,
            backend_reason="",
            device=str(self._device),
            device_count=torch.cuda.device_count() if self._device.type == "cuda" else 1,
            precision=self._precision,
            precision_reason=reason,
            base_parameters=footprint.base_parameters,
            rows=self._material.rows,
            base_fingerprint=self._base_fingerprint(config, say),
            data_fingerprint=self._material.fingerprint(),
            functions=functions.fingerprint(config),
            footprint=footprint,
            trains_head=any(isinstance(m, ModulesToSaveWrapper) for m in self._model.modules()),
            classes=tuple(
                classes_of(name, read.labels, read.splits)
                for name, read in examples.items()
                if read.labels
            ),
            warnings=(
                *self._base.notes,
                *(warning for read in examples.values() for warning in read.warnings),
                *self._material.losses_of_text(),
                *warnings,
                *disagreements(self._model, self._material, self._scoring),
            ),
        )

    def _trial(self) -> Trial:
        return Trial(
            self._config,
            self._base,
            self._model,
            self._material,
            self._autocast,
            self._scoring,
            TEMPLATE,
        )

    def _base_fingerprint(self, config: Config, say: Say) -> str:
        """By which a resume knows the base again; where its files cannot be found any more, the
        commit of the hub that it is of."""
        try:
            path = source_of(config, say).path
            return of_base(path, runs_code=config.model.trust_remote_code)
        except (OSError, ValueError):
            return str(getattr(self._base.model.config, "_commit_hash", None) or "")

    def _faster_precision(self, say: Say) -> tuple[str, str]:
        say("measuring whether bf16 is faster than fp32 here")
        batches = self._material.batches(self._config.training.batch_size)
        rows = len(self._material.train.ids)
        try:
            return faster_precision(
                self._model,
                lambda batch: self._material.task.loss(self._model, self._material.train, batch),
                [batches.rows(step, rows).tolist() for step in range(4)],
                self._device,
            )
        except Exception as error:  # whole batches may not fit, and not every base computes in bf16
            reason = reason_of(error)
        self._model.zero_grad(set_to_none=True)
        free()
        return "fp32", f"bf16 could not be measured: {reason}"

    def _autocast(self) -> AbstractContextManager[Any]:
        """How training runs its forward pass."""
        return autocast(self._precision, self._device)

    def _scoring(self) -> AbstractContextManager[Any]:
        """How scoring does: in full precision where the base is held so, else in bf16."""
        return autocast("fp32" if self._is_whole else "bf16", self._device)

    # -- training --------------------------------------------------------------------------------

    def train(self, job: Job, report: Report, beat: Beat = unheard) -> StageResult:
        began = time.monotonic()
        adapter = adapters.name_of(job.genome)
        with refusing():
            if job.watch.explosion and self._untuned_loss is None:
                self._untuned_loss = self._loss_before_training()
            adapters.add(self._model, job.genome, job.trained_shape, self._base)
            try:
                if not job.genome.genes.adapts_base:
                    return self._head_trained(job, report, beat, began)
                return self._trained(job, report, beat, began)
            finally:
                self._drop(adapter)

    def _trained(self, job: Job, report: Report, beat: Beat, began: float) -> StageResult:
        """Train, evaluate and save the active adapter, from its partial checkpoint on if there is
        one; where the beat says so, leave such a one and stop."""
        start, trace = partial.take_up(self._model, job) or self._fresh(job, beat)
        trained_before, steps_before = trace.seconds, len(trace.losses)
        trainer = self._trainer(job, start)

        def keep() -> None:
            partial.keep(self._model, job, trainer.optimizer, start, trace)

        try:
            minutes = self._config.runtime.checkpoint_minutes
            trainer.run(job, trace, report, beat, keep, 60.0 * minutes)
            trained = time.monotonic()
            metrics, remarks = self._figures_after(job, trace, beat)
        except Paused:
            if len(trace.losses) > steps_before:
                keep()
            raise
        evaluated = time.monotonic()
        if job.checkpoint is not None and trace.divergence is None:
            self._save(job, trainer.optimizer, start)
        evaluation = start.eval_seconds + evaluated - trained
        spent = trace.seconds - trained_before
        overhead = time.monotonic() - began - spent - evaluation
        notes = (*self.notes_on(job.genome.genes), *remarks)
        return result_of(job, start, trace, metrics, notes, evaluation, overhead)

    def _head_trained(self, job: Job, report: Report, beat: Beat, began: float) -> StageResult:
        """Fit the head alone on the frozen base, evaluate and save it."""
        name, start = adapters.name_of(job.genome), Start(0)
        parts = self._material.parts
        fitted = train_head(self._model, name, parts, self._scoring, job, report, beat)
        trained = time.monotonic()
        ended = None if fitted.is_finite else Divergence(len(fitted.losses), "loss")
        trace = Trace(list(fitted.losses), seconds=trained - began, divergence=ended)
        metrics, remarks = self._figures_after(job, trace, beat)
        evaluation = time.monotonic() - trained
        if job.checkpoint is not None and trace.divergence is None:
            self._save(job, None, start)
        overhead = time.monotonic() - trained - evaluation
        notes = (*fitted.notes, *remarks)
        return result_of(job, start, trace, metrics, notes, evaluation, overhead)

    def _fresh(self, job: Job, beat: Beat) -> tuple[Start, Trace]:
        """How the stage begins, with nothing trained yet."""
        seed = self._config.experiment.seed

        def loss() -> float | None:
            return self._evaluation.loss(job.eval_limit, beat)

        start = begin(self._model, job, seed, loss)
        return start, Trace(micro_batch=job.micro_batch)

    def _save(self, job: Job, optimizer: torch.optim.Optimizer | None, start: Start) -> None:
        state = {
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
        adapters.save(Path(str(job.checkpoint)), self._model, name, optimizer, state)

    def _loss_before_training(self) -> float:
        """The untuned base's mean training loss over the first rows of the data order."""
        batches = self._material.batches(self._config.training.batch_size)
        rows = batches.order(0, len(self._material.train.ids))[:UNTUNED_ROWS].tolist()
        return mean_loss(
            self._model, self._material.task, self._material.train, rows, self._autocast
        )

    def _trainer(self, job: Job, start: Start) -> Trainer:
        genes = job.genome.genes
        parameters = adapters.trainable(self._model)
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=genes.learning_rate, weight_decay=genes.weight_decay
        )
        if start.moments is not None:
            name = adapters.name_of(job.genome)
            adapters.load_optimizer(optimizer, parameters, name, start.moments, start.factor)
        batches = self._material.batches(genes.batch_size)
        subset = subset_size(len(self._material.train.ids), job.data_fraction)
        return Trainer(
            model=self._model,
            parameters=list(parameters.values()),
            optimizer=optimizer,
            task=self._material.task,
            data=self._material.train,
            rows_of=lambda step: batches.rows(step, subset),
            settings=self._config.training,
            autocast=self._autocast,
            untuned_loss=self._untuned_loss,
        )

    def _drop(self, adapter: str) -> None:
        self._model.set_adapter(TEMPLATE)
        self._model.delete_adapter(adapter)

    # -- evaluation ------------------------------------------------------------------------------

    def _figures_after(
        self, job: Job, trace: Trace, beat: Beat
    ) -> tuple[dict[str, float | None], tuple[str, ...]]:
        """Every figure of the stage (predictions on validation, adapter, training signals), and
        what is to be remarked on them. None of what diverged; scores that are not finite are a
        divergence, too, which then stands in the trace."""
        if trace.divergence is not None:
            return {}, ()
        costs = self._costs(job.genome, job.trained_shape.rank)
        if not job.is_scored:
            return {**costs, **signals_of(job, trace)}, ()
        figures = self._evaluation.validated(job.eval_limit, beat, job.predictions)
        if figures is None:
            trace.divergence = Divergence(job.last_step, "score")
            return {}, ()
        rows = self._material.rows["validation"]
        if job.eval_limit is not None:
            rows = min(rows, job.eval_limit * len(self._material.parts))
        remarks = undefined(figures, rows, self._evaluation.why_undefined)
        return {**figures, **costs, **signals_of(job, trace)}, remarks

    def _costs(self, genome: Genome, rank: int) -> dict[str, float | None]:
        """What the genome's finished adapter costs, whatever its rank is now: that is what its
        skill is weighed against, in early stages too."""
        growth = Fraction(genome.genes.rank, rank)
        return adapters.costs(self._model, adapters.name_of(genome), growth)

    def measure(self, job: MeasureJob, beat: Beat = unheard) -> Measurement:
        began = time.monotonic()
        found = self._measured(job, beat)
        return replace(found, seconds=time.monotonic() - began)

    def _measured(self, job: MeasureJob, beat: Beat) -> Measurement:
        if job.genome is None:
            with self._model.disable_adapter():
                untuned = {"trainable_parameters": 0.0, "adapter_bytes": 0.0}
                return self._evaluation.measured(job, untuned, beat)
        name, genes = adapters.name_of(job.genome), job.genome.genes
        with refusing():
            adapters.add(self._model, job.genome, genes.shape, self._base)
            try:
                adapters.put(self._model, name, adapters.read(Path(str(job.checkpoint))).weights)
                return self._evaluation.measured(job, self._costs(job.genome, genes.rank), beat)
            finally:
                self._drop(name)


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
