"""Training adapters on a frozen base with torch: what every backend that does so has in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper

from coralx.backends.choice import holds_half
from coralx.backends.device_memory import checkpointing_by_need
from coralx.backends.protocol import Beat, Report, Say, no_beat
from coralx.backends.unsloth_models import overflows_in_half
from coralx.backends.unsloth_support import model_type
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.data.classes import classes_of
from coralx.data.splits import Examples, load_all
from coralx.records.genomes import Genes, Genome, Shape
from coralx.records.jobs import DeriveJob, Job, MeasureJob
from coralx.records.results import Derived, Measurement, StageResult
from coralx.records.run_facts import NO_MEMORY, REVISION, DeviceMemory, Facts, Footprint
from coralx.training import adapters, cpu_layers
from coralx.training import user_functions as functions
from coralx.training.adapters import TEMPLATE
from coralx.training.base_checks import require_causal, require_known_tokens
from coralx.training.base_errors import explaining
from coralx.training.base_fingerprint import fingerprint_of_base
from coralx.training.base_model import Base
from coralx.training.base_source import locate_base
from coralx.training.derived_adapter import Deriving
from coralx.training.device import keep_to_share, memory_of, require_kernels, training_device
from coralx.training.evaluation import Evaluation
from coralx.training.footprint import footprint_of
from coralx.training.frozen_prefix import FrozenPrefix
from coralx.training.out_of_memory import free, raising_out_of_memory, reason_of
from coralx.training.pack_trial import PackTrial
from coralx.training.packed_stage import train_together
from coralx.training.padding_check import disagreements
from coralx.training.precision import (
    autocast,
    base_dtype,
    faster_precision,
    half_precision,
    known_precision,
    loss_scaler,
    precision_of,
)
from coralx.training.prefix_cache import PrefixCache
from coralx.training.quantization import check_quantization
from coralx.training.stage_training import StageTraining
from coralx.training.task_data import Material
from coralx.training.trial_batch import Trial

PREFIX_MB = 256
"""Of states kept in memory, on a CPU. Reading more from a disk takes next to no time."""

TRIED_TEXTS = 64
"""Among so many rows lie the texts by which it is tried whether states can be kept."""


class AdapterBackend(ABC):
    """One base model, and beside its template one adapter at a time: that of the job."""

    name: str
    has_cpu_layers = False
    """Whether the base's layers may be replaced on a CPU; see `cpu_layers`."""
    freezes_prefix = False
    """Whether what lies below the lowest adapted layer may be taken out of forward passes."""

    def __init__(self) -> None:
        self.base_loads = 0

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
    def wrap(self, config: Config, base: Base, *, recomputes: bool) -> PeftModel:
        """The base with its template adapter; where it `recomputes`, activations are computed again
        in the backward pass instead of being held."""

    def notes_on(self, genes: Genes) -> tuple[str, ...]:
        """What is worth saying about how such a genome is trained here."""
        return ()

    def dropped(self) -> None:  # noqa: B027  most hold nothing
        """Give back what was held for the adapter that is no longer in the model."""

    def new_scaler(self) -> torch.amp.GradScaler:
        """What scales the losses of a stage."""
        return loss_scaler(self._precision, self._device)

    def devices(self) -> tuple[str, int]:
        device = training_device().type
        return device, torch.cuda.device_count() if device == "cuda" else 1

    # -- before the first job --------------------------------------------------------------------

    def prepare(
        self,
        config: Config,
        precision: str | None,
        threads: int,
        say: Say,
        revision: int = REVISION,
        checkpointing: bool | None = None,
        memory: DeviceMemory = NO_MEMORY,
    ) -> Facts:
        torch.set_num_threads(threads)
        self._config = config
        self._take_device(memory)
        # Tasks may share a file.
        tables = {source.train: None for source in config.data.sources.values()}
        say(f"reading {', '.join(map(str, tables))}")
        examples = load_all(config.data, config.experiment.seed, config.model.task, revision)
        say(f"loading {config.model.base} on {self._device}")
        known = self._known_precision(precision)
        self._precision = known[0] if known else "fp32"
        footprint = self._load_base(examples, known[0] if known else None, revision, say)
        footprint, why = self._with_checkpointing(footprint, checkpointing, say)
        self._wrap_base(revision, recomputes=footprint.checkpointing)
        # Where a precision is given, a worker before this one has tried a batch and measured it.
        warnings = self._trial().run(footprint, say) if precision is None else ()
        self._precision, reason = known or self._faster_precision(say)
        if self._precision == "fp32":
            cpu_layers.forget_half(self._model)
        self._training = StageTraining(
            self._config,
            self._model,
            self._material,
            self._evaluation,
            self._autocast,
            self.new_scaler,
            self._scoring,
            self.notes_on,
            self._prefix,
        )
        facts = self._facts(footprint, reason, examples, warnings, say)
        return replace(facts, checkpointing_reason=why)

    def _take_device(self, known: DeviceMemory) -> None:
        """The device to train on, what it cannot train, and what may be used of its memory."""
        self._device = training_device()
        require_kernels(self._device)
        self._memory = memory_of(self._device, known)
        keep_to_share(self._device, self._memory)
        check_quantization(self._config, self._device, self.name)

    def _known_precision(self, recorded: str | None) -> tuple[str, str] | None:
        config, on_gpu = self._config, self._device.type == "cuda"
        return known_precision(
            config,
            recorded,
            self._device,
            held_in_half=holds_half(config.model.task, self.name),
            overflows=on_gpu and overflows_in_half(model_type(config)),
        )

    def _load_base(
        self, examples: Mapping[str, Examples], precision: str | None, revision: int, say: Say
    ) -> Footprint:
        """Load the base, and encode the rows for it; the footprint is that without adapters."""
        config = self._config
        labels = [label for read in examples.values() for label in read.labels]
        in_half = holds_half(config.model.task, self.name)
        dtype = base_dtype(precision, self._device, held_in_half=in_half)
        self._base = self.load(config, labels, self._device, dtype, say)
        self.base_loads += 1
        self._base_precision = precision_of(dtype)
        self._material = Material(config, examples, self._base, self._device, revision)
        require_known_tokens(config, self._base, self._material)
        footprint = footprint_of(
            config,
            self._base.model,
            self._base.head,
            self._memory,
            precision=self._precision,
            fused_loss=self._base.fused_loss,
            fused=self._base.fused_kernels,
        )
        names = tuple(name for name, _, _ in footprint.linear)
        self._base = replace(self._base, linear=names, layers=footprint.layers)
        return footprint

    def _with_checkpointing(
        self, footprint: Footprint, recorded: bool | None, say: Say
    ) -> tuple[Footprint, str]:
        """The footprint with the decision whether activations are recomputed, which is that
        `recorded` where the config leaves it open, and the reason."""
        is_open = self._config.runtime.gradient_checkpointing == "auto"
        if is_open and recorded is not None:
            return replace(footprint, checkpointing=recorded), "as recorded"
        on_gpu = self._device.type == "cuda"
        decided = checkpointing_by_need(self._config, footprint, self._memory, on_gpu=on_gpu)
        if is_open and not getattr(self._base.model, "supports_gradient_checkpointing", True):
            return footprint, "the base does not support it" if on_gpu else ""
        if on_gpu and is_open:
            say(decided.line)
        return replace(footprint, checkpointing=decided.is_on), decided.reason

    def _wrap_base(self, revision: int, *, recomputes: bool) -> None:
        """Add the template adapter, and what scores the model."""
        config = self._config
        # They round otherwise, and draw other masks of dropout: a run ends as it began.
        if self.has_cpu_layers and self._device.type == "cpu" and revision >= cpu_layers.REVISION:
            cpu_layers.install(self._base.model, self._base.head)
        with explaining(config, "an adapter"):
            self._model = self.wrap(config, self._base, recomputes=recomputes)
        self._prefix = self._frozen_prefix()
        self._evaluation = Evaluation(
            config,
            self._model,
            self._material,
            self._scoring,
            self._device,
            self._prefix.computing,
        )
        if config.model.task in CAUSAL:
            with self._scoring(), explaining(config, "the untuned base"):
                require_causal(config, self._model, len(self._base.tokenizer))

    def _frozen_prefix(self) -> FrozenPrefix:
        megabytes = self._config.runtime.prefix_cache_mb
        if megabytes is None:
            megabytes = PREFIX_MB if self._device.type == "cpu" else 0
        return FrozenPrefix(
            self._model,
            self._base,
            PrefixCache(megabytes << 20) if megabytes else None,
            self._material.train.ids[:TRIED_TEXTS],
            self._scoring,
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

    def _facts(
        self,
        footprint: Footprint,
        precision_reason: str,
        examples: Mapping[str, Examples],
        warnings: Sequence[str],
        say: Say,
    ) -> Facts:
        """What is recorded at the start of a run; `warnings` are those of the trial."""
        read = [warning for table in examples.values() for warning in table.warnings]
        return Facts(
            backend=self.name,
            backend_reason="",
            device=str(self._device),
            device_count=torch.cuda.device_count() if self._device.type == "cuda" else 1,
            precision=self._precision,
            precision_reason=precision_reason,
            base_parameters=footprint.base_parameters,
            rows=self._material.rows,
            base_fingerprint=self._base_fingerprint(say),
            data_fingerprint=self._material.fingerprint(),
            functions=functions.fingerprint(self._config),
            footprint=footprint,
            trains_head=any(isinstance(m, ModulesToSaveWrapper) for m in self._model.modules()),
            classes=tuple(
                classes_of(name, table.labels, table.splits)
                for name, table in examples.items()
                if table.labels
            ),
            warnings=(
                *self._base.notes,
                *read,
                *self._material.warnings(),
                *warnings,
                *disagreements(self._model, self._material, self._scoring),
            ),
        )

    def _base_fingerprint(self, say: Say) -> str:
        """By which a resume recognises the base; where its files are gone since it was loaded, the
        hub's commit of it."""
        try:
            path = locate_base(self._config, say).path
            return fingerprint_of_base(path, runs_code=self._config.model.trust_remote_code)
        except (OSError, ValueError):
            return str(getattr(self._base.model.config, "_commit_hash", None) or "")

    def _faster_precision(self, say: Say) -> tuple[str, str]:
        """fp32 or half precision, as measured, and the reason in words."""
        half = half_precision(self._device)
        say(f"measuring whether {half} is faster than fp32 here")
        batches = self._material.batches(self._config.training.batch_size)
        rows = len(self._material.train.ids)
        try:
            return faster_precision(
                self._model,
                lambda batch: self._material.task.loss(self._model, self._material.train, batch),
                [batches.rows(step, rows).tolist() for step in range(4)],
                self._device,
            )
        except Exception as error:  # whole batches may not fit, and not every base computes so
            reason = reason_of(error)
        self._model.zero_grad(set_to_none=True)
        free()
        return "fp32", f"{half} could not be measured: {reason}"

    def _autocast(self) -> AbstractContextManager[Any]:
        """How training runs its forward pass."""
        return autocast(self._precision, self._device)

    def _scoring(self) -> AbstractContextManager[Any]:
        """How scoring does: in the precision in which the base is held."""
        return autocast(self._base_precision, self._device)

    # -- jobs ------------------------------------------------------------------------------------

    def train(self, job: Job, report: Report, beat: Beat = no_beat) -> StageResult:
        began = time.monotonic()
        with raising_out_of_memory():
            if job.watch.explosion:
                self._training.measure_untuned_loss()
            with self._adapter(job.genome, job.trained_shape):
                return self._training.run(job, report, beat, began)

    def decide_pack(self, facts: Facts, wanted: int | None, say: Say) -> Facts:
        if facts.footprint is None:
            raise RuntimeError("the facts of `prepare` have a footprint")
        trial = PackTrial(self._training, self._adapter, facts.footprint, self._precision)
        pack, reason = trial.decided(wanted, say)
        return replace(facts, pack=pack, pack_reason=reason)

    def train_pack(
        self, jobs: Sequence[Job], report: Report, beat: Beat = no_beat
    ) -> Iterator[StageResult]:
        with raising_out_of_memory():
            if any(job.watch.explosion for job in jobs):
                self._training.measure_untuned_loss()
            yield from train_together(self._training, jobs, self._adapter, report, beat)

    def measure(self, job: MeasureJob, beat: Beat = no_beat) -> Measurement:
        began = time.monotonic()
        measurement = self._measured(job, beat)
        return replace(measurement, seconds=time.monotonic() - began)

    def _measured(self, job: MeasureJob, beat: Beat) -> Measurement:
        if job.genome is None:
            with self._model.disable_adapter():
                untuned = {"trainable_parameters": 0.0, "adapter_bytes": 0.0}
                return self._evaluation.measured(job, untuned, beat)
        with raising_out_of_memory(), self._removing(job.genome) as name:
            saved = adapters.read(Path(str(job.checkpoint)))
            if job.genome.derived is None:
                adapters.add(self._model, job.genome, job.genome.genes.shape, self._base)
                adapters.put(self._model, name, saved.weights)
            else:
                adapters.add_derived(self._model, job.genome, saved, self._base)
            costs = self._training.costs(job.genome, job.genome.genes.rank)
            return self._evaluation.measured(job, costs, beat)

    def derive(self, job: DeriveJob, beat: Beat = no_beat) -> Derived:
        began = time.monotonic()
        deriving = Deriving(self._model, self._base, self._training, self._removing)
        with raising_out_of_memory():
            return deriving.run(job, beat, began)

    @contextmanager
    def _adapter(self, genome: Genome, shape: Shape) -> Iterator[str]:
        """In the block, a fresh adapter of the genome's is active; its name."""
        with self._removing(genome) as name:
            adapters.add(self._model, genome, shape, self._base)
            yield name

    @contextmanager
    def _removing(self, genome: Genome) -> Iterator[str]:
        """After the block, the genome's adapter, of that name, is no longer in the model."""
        name = adapters.name_of(genome)
        freezes = self._prefix.below(genome.genes) if self.freezes_prefix else nullcontext()
        try:
            with freezes:
                yield name
        finally:
            self._model.set_adapter(TEMPLATE)
            if name in self._model.peft_config:
                self._model.delete_adapter(name)
            self.dropped()
