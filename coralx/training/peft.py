"""The PEFT backend: trains on CPU, CUDA and MPS. The reference for all others."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model

from coralx.config.schema import Config
from coralx.config.space import IntChoices
from coralx.data.sources import load_examples
from coralx.data.subsets import batch_rows, bucketed_order, subset_size
from coralx.data.tasks import Encoded, SequenceClassification
from coralx.errors import ConfigError
from coralx.objectives.bootstrap import intervals
from coralx.objectives.predictions import figures
from coralx.records import (
    Facts,
    Genome,
    Interval,
    Job,
    MeasureJob,
    Measurement,
    Metrics,
    StageResult,
)
from coralx.training import adapters, base
from coralx.training.backend import Report, Say
from coralx.training.loop import Trace, Trainer, predict
from coralx.training.precision import autocast, faster_precision
from coralx.training.signals import loss_trend, typical_gradient_norm

TEMPLATE = "default"
"""The first adapter, which wraps the base; never trained. Genomes are added beside it."""


class PeftBackend:
    """One base model, and beside its template one adapter at a time: that of the job."""

    def __init__(self) -> None:
        self.base_loads = 0

    def devices(self) -> tuple[str, int]:
        device = _device().type
        return device, torch.cuda.device_count() if device == "cuda" else 1

    def prepare(self, config: Config, precision: str | None, threads: int, say: Say) -> Facts:
        torch.set_num_threads(threads)
        self._config = config
        self._device = _device()
        say(f"reading {config.data.train}")
        examples = load_examples(config.data, config.experiment.seed)
        say(f"loading {config.model.base} on {self._device}")
        loaded = base.load(config, examples.labels, self._device)
        self.base_loads += 1
        self._base = loaded
        self._base_parameters = sum(p.numel() for p in loaded.model.parameters())
        self._task = SequenceClassification(loaded.tokenizer, config.model.max_length, self._device)
        _check_batches(config, len(examples.train))
        self._train = self._task.encode(examples.train)
        self._evaluation = {
            "validation": self._task.encode(examples.validation),
            "test": self._task.encode(examples.test),
        }
        self._orders: dict[int, np.ndarray[Any, np.dtype[np.int64]]] = {}
        self._model: PeftModel = get_peft_model(loaded.model, self._template(loaded.model))
        wanted = precision or config.training.precision
        if wanted == "auto":
            say("measuring whether bf16 is faster than fp32 here")
            typical = self._order(config.training.batch_size)
            batches = np.array_split(typical[: 4 * config.training.batch_size], 4)
            self._precision, reason = faster_precision(
                self._model,
                lambda batch: self._task.loss(self._model, self._train, batch),
                [batch.tolist() for batch in batches],
                self._device,
            )
        else:
            self._precision, reason = wanted, "as configured or recorded"
        rows = {name: len(data.ids) for name, data in self._evaluation.items()}
        return Facts(
            backend="peft",
            backend_reason="",
            device=str(self._device),
            device_count=torch.cuda.device_count() if self._device.type == "cuda" else 1,
            precision=self._precision,
            precision_reason=reason,
            base_parameters=self._base_parameters,
            rows={"train": len(self._train.ids), **rows},
            fingerprint=self._fingerprint(),
            warnings=examples.warnings,
        )

    def _template(self, model: Any) -> LoraConfig:
        return LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=1,
            target_modules=base.linear_names(model, self._base.head)[:1],
            modules_to_save=list(self._base.head) or None,
        )

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(str(self._base_parameters).encode())
        for split in (self._train, *self._evaluation.values()):
            digest.update(repr(split.ids).encode())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()

    # -- training --------------------------------------------------------------------------------

    def train(self, job: Job, report: Report) -> StageResult:
        began = time.monotonic()
        genome = job.genome
        adapters.add(self._model, genome, self._base)
        try:
            trainer = self._trainer(job)
            trace = trainer.run(job, report)
            trained = time.monotonic()
            metrics = {} if trace.divergence else self._figures_after(job, trace)
            evaluated = time.monotonic()
            if job.checkpoint is not None and trace.divergence is None:
                state = {
                    "genome": genome.id,
                    "stage": job.stage,
                    "step": job.last_step,
                    "inherited_steps": job.inherited_steps,
                    "horizon": {
                        "total_steps": job.horizon.total_steps,
                        "warmup_steps": job.horizon.warmup_steps,
                    },
                }
                path = Path(job.checkpoint)
                adapters.save(path, self._model, adapters.name_of(genome), trainer.optimizer, state)
        finally:
            self._drop(adapters.name_of(genome))
        overhead = time.monotonic() - began - trace.seconds - (evaluated - trained)
        return self._result(job, trace, metrics, evaluated - trained, overhead)

    def _trainer(self, job: Job) -> Trainer:
        genes = job.genome.genes
        source = job.resume_from or job.inherit_from
        factor = 1.0
        if source is not None:
            name = adapters.name_of(job.genome)
            factor = adapters.load_weights(self._model, name, Path(source))
        parameters = adapters.trainable(self._model)
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=genes.learning_rate, weight_decay=genes.weight_decay
        )
        if source is not None and (job.resume_from or job.inherit_optimizer):
            adapters.load_optimizer(
                optimizer, parameters, adapters.name_of(job.genome), Path(source), factor
            )
        order = self._order(genes.batch_size)
        subset = subset_size(len(order), job.data_fraction)
        return Trainer(
            model=self._model,
            parameters=list(parameters.values()),
            optimizer=optimizer,
            task=self._task,
            data=self._train,
            rows_of=lambda step: batch_rows(order, step, genes.batch_size, subset),
            settings=self._config.training,
            autocast=lambda: autocast(self._precision, self._device),
        )

    def _order(self, batch_size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The bucketed data order for a batch size, made once."""
        if batch_size not in self._orders:
            rows = len(self._train.ids)
            stages = self._config.hyperband_config.training_stages
            ends = [subset_size(rows, float(stage.data_percentage / 100)) for stage in stages]
            seed = self._config.experiment.seed
            self._orders[batch_size] = bucketed_order(
                np.arange(rows), self._train.lengths, batch_size, ends, seed
            )
        return self._orders[batch_size]

    def _drop(self, adapter: str) -> None:
        self._model.set_adapter(TEMPLATE)
        self._model.delete_adapter(adapter)

    def _result(
        self, job: Job, trace: Trace, metrics: Metrics, eval_seconds: float, overhead: float
    ) -> StageResult:
        judged = max(0, job.last_step - max(job.first_step, job.horizon.warmup_steps))
        return StageResult(
            genome=job.genome.id,
            stage=job.stage,
            first_step=job.first_step,
            last_step=job.first_step + len(trace.losses),
            metrics=metrics,
            judged_steps=judged,
            loss_trend=None if trace.divergence else loss_trend(_after_warmup(job, trace)),
            train_seconds=trace.seconds,
            eval_seconds=eval_seconds,
            overhead_seconds=max(0.0, overhead),
            inherited_steps=job.inherited_steps,
            checkpoint=None if trace.divergence else job.checkpoint,
            divergence=trace.divergence,
        )

    # -- evaluation ------------------------------------------------------------------------------

    def _figures_after(self, job: Job, trace: Trace) -> dict[str, float | None]:
        """Every figure of the stage: predictions on validation, adapter, training signals."""
        data = _head_of(self._evaluation["validation"], job.eval_limit)
        probabilities = predict(self._model, self._task, data)
        trend = loss_trend(_after_warmup(job, trace))
        return {
            **figures(probabilities, data.labels),
            **self._costs(adapters.name_of(job.genome)),
            "train_loss": float(np.mean(trace.losses[-50:])) if trace.losses else None,
            "gradient_norm": typical_gradient_norm(trace.norms),
            "loss_slope": trend.slope if trend else None,
        }

    def _costs(self, adapter: str) -> dict[str, float | None]:
        parameters = sum(p.numel() for p in adapters.trainable(self._model).values())
        size = adapters.size_in_bytes(self._model, adapter)
        return {"trainable_parameters": float(parameters), "adapter_bytes": float(size)}

    def measure(self, job: MeasureJob) -> Measurement:
        if job.genome is None:
            with self._model.disable_adapter():
                return self._measured(None, {"trainable_parameters": 0.0, "adapter_bytes": 0.0})
        adapters.add(self._model, job.genome, self._base)
        try:
            adapters.load_weights(
                self._model, adapters.name_of(job.genome), Path(str(job.checkpoint))
            )
            return self._measured(
                job.genome, self._costs(adapters.name_of(job.genome)), job.validation
            )
        finally:
            self._drop(adapters.name_of(job.genome))

    def _measured(
        self, genome: Genome | None, costs: Metrics, validation: Metrics | None = None
    ) -> Measurement:
        if validation is None:
            data = self._evaluation["validation"]
            scores = predict(self._model, self._task, data)
            validation = {**figures(scores, data.labels), **costs}
        data = self._evaluation["test"]
        scores = predict(self._model, self._task, data)
        measured = intervals(scores, data.labels, self._config.experiment.seed)
        exact = {name: Interval(value, value, value) for name, value in costs.items()}
        return Measurement(genome.id if genome else None, validation, {**measured, **exact})


def _check_batches(config: Config, rows: int) -> None:
    """Raise ConfigError where a batch would hold a row twice."""
    gene = config.search_space.batch_size
    largest = config.training.batch_size
    if gene is not None:
        largest = max(gene.choices) if isinstance(gene, IntChoices) else gene.high
    if rows < largest:
        key = "training.batch_size" if gene is None else "search_space.batch_size"
        raise ConfigError(
            "config",
            [f"{key}: {largest}, but data.train has only {rows} rows"],
            "Give more rows, or make the batches smaller.",
        )


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _head_of(data: Encoded, limit: int | None) -> Encoded:
    """The first `limit` rows. Validation stands in a stratified order, so they are a sample."""
    return data if limit is None else Encoded(data.ids[:limit], data.labels[:limit])


def _after_warmup(job: Job, trace: Trace) -> list[float]:
    return trace.losses[max(0, job.horizon.warmup_steps - job.first_step) :]
