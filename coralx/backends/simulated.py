"""Simulated learning curves: the same search at no cost. Its figures are never evidence.

Skill follows a saturating curve, floor + (ceiling - floor) (1 - exp(-progress / pace)), whose
ceiling and pace depend on rank, learning rate, dropout and modules. Noise falls as training goes on
and is drawn from (seed, genome, stage), so that equal runs agree exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

from coralx.backends.protocol import Beat, Report, Say, no_beat
from coralx.backends.simulated_adapters import (
    SimulatedAdapter,
    adapter_from,
    derive,
    trained,
)
from coralx.backends.simulated_figures import figures_of
from coralx.config.metric_catalogue import Direction, metric_entry, split_metric_name
from coralx.config.schema import Config
from coralx.errors import NotDerivable
from coralx.records.genomes import ALL_LAYERS, ALL_LINEAR, Genes
from coralx.records.jobs import DeriveJob, Job, MeasureJob
from coralx.records.results import (
    Derived,
    Divergence,
    Interval,
    Measurement,
    Progress,
    StageResult,
    Trend,
)
from coralx.records.run_facts import NO_MEMORY, REVISION, DeviceMemory, Facts
from coralx.rng import derive_seed
from coralx.schedule.derivation_budget import look_cost
from coralx.schedule.early_stopping import WINDOWS, unreachable, window_ends, windows_in_warmup
from coralx.system.files import write_folder

SECONDS_PER_STEP = 0.2
EVAL_SECONDS = 2.0

COUNTS = ("trainable_parameters", "adapter_bytes", "memory", "latency_ms")
"""Figures that are the same on every split."""

OF_TRAINING = ("gradient_norm", "loss_slope", "train_loss")
"""Figures that a final measurement does not have."""

UNBOUNDED = ("eval_loss", "perplexity")
"""Figures that may lie above 1."""

STATE = "trainer_state.json"

UNSCORED = ("train_loss", "trainable_parameters", "adapter_bytes")
"""What is known of an adapter before it is scored."""


@dataclass(frozen=True)
class Curve:
    """One genome's noiseless learning curve."""

    ceiling: float
    """The skill (AUROC) that it approaches."""

    pace: float
    """The share of its horizon after which 63 % of the way is done."""

    explodes: bool
    """Whether training diverges once the warm-up is over."""

    def skill(self, progress: float) -> float:
        """AUROC after `progress` (trained steps over the horizon, lineage included)."""
        return 0.5 + (self.ceiling - 0.5) * (1.0 - math.exp(-progress / self.pace))

    def losses(self, job: Job, rng: Random) -> tuple[float, ...]:
        """Training loss in each window of the job, with a little noise."""
        steps = job.last_step - job.first_step
        if steps < WINDOWS:
            return ()
        return tuple(
            0.65 * (1.5 - self.skill(_progress(job, job.first_step + end))) + 0.005 * rng.gauss()
            for end in window_ends(steps)
        )


def curve_of(genes: Genes) -> Curve:
    """Skill is a bump over the logarithm of the learning rate, whose best value falls with alpha
    over rank and with rank. The ceiling rises with rank and modules, and saturates."""
    everywhere = genes.target_modules == ALL_LINEAR and genes.layers == ALL_LAYERS
    capacity = math.log2(1 + genes.rank) / math.log2(65) * (1.0 if everywhere else 0.8)
    best = 1.2e-3 / math.sqrt(genes.alpha_ratio) * (16 / genes.rank) ** 0.25
    distance = math.log10(genes.learning_rate / best)
    fit = math.exp(-((distance / 0.55) ** 2))
    harm = 0.06 * genes.dropout + 0.02 * (1 - fit)
    ceiling = 0.5 + fit * (0.38 + 0.08 * min(capacity, 1.0)) - harm
    pace = 0.12 * (1.2e-3 / genes.learning_rate) ** 0.5 * (1 + 0.15 * capacity)
    return Curve(max(ceiling, 0.5), pace, explodes=distance > 0.8)


class SimulatedBackend:
    """Answers jobs from curves, at once and the same way every time."""

    def __init__(self) -> None:
        self.base_loads = 0
        self._seed = 0
        self._named: dict[str, Direction] = {}
        self._look_seconds = EVAL_SECONDS
        """What scoring a derived adapter takes: against training, what it is reckoned to cost."""
        self._adapters: dict[str, SimulatedAdapter] = {}
        """Of the genomes trained so far, where no checkpoints are written."""

    def devices(self) -> tuple[str, int]:
        return "none", 1

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
        self._seed = config.experiment.seed
        self._named = {
            name: config.direction_of(name)
            for name in config.named_metrics
            if metric_entry(name).source in ("predictions", "user")
        }
        self.base_loads += 1
        rows = {"train": config.known_rows, "validation": 0, "test": 0}
        steps = look_cost(config.model.task, rows) / config.training.batch_size
        self._look_seconds = SECONDS_PER_STEP * float(steps)
        return Facts(
            backend="simulated",
            backend_reason="simulated learning curves; nothing is trained",
            device="none",
            device_count=0,
            precision="none",
            precision_reason="nothing is trained",
            base_parameters=0,
            rows=rows,
        )

    def train(self, job: Job, report: Report, beat: Beat = no_beat) -> StageResult:
        beat()
        curve = curve_of(job.genome.genes)
        losses = curve.losses(job, self._random("simulated-losses", job))
        divergence = _divergence(job, curve, losses)
        last_step = divergence.step if divergence else job.last_step
        steps = last_step - job.first_step
        rank = job.trained_shape.rank
        metrics = self._stage_metrics(job, curve) if divergence is None else {}
        report(Progress(job.genome.id, job.stage, job.last_step, job.last_step, 0.7, 0.0))
        if divergence is None:
            skill = metrics.get("auroc", curve.skill(_progress(job, job.last_step)))
            adapter = trained(self._seed, job.genome.id, job.genome.genes, skill or 0.0)
            self._keep(job, adapter, {"step": job.last_step, "metrics": metrics})
        slope = metrics.get("loss_slope")
        ends = window_ends(job.last_step - job.first_step)
        return StageResult(
            genome=job.genome.id,
            stage=job.stage,
            first_step=job.first_step,
            last_step=last_step,
            metrics=metrics,
            loss_trend=None if slope is None else Trend(slope, *sorted((0.8 * slope, 1.2 * slope))),
            train_seconds=steps * SECONDS_PER_STEP * (1 + rank / 64),
            eval_seconds=EVAL_SECONDS if divergence is None and job.is_scored else 0.0,
            judged_steps=max(0, job.last_step - max(job.first_step, job.horizon.warmup_steps)),
            overhead_seconds=0.0,
            inherited_steps=job.inherited_steps,
            checkpoint=None if divergence else job.checkpoint,
            divergence=divergence,
            curve=losses[: sum(end <= steps for end in ends)],
            rank=rank,
        )

    def _stage_metrics(self, job: Job, curve: Curve) -> dict[str, float | None]:
        """Figures at the stage's end, those of validation with noise."""
        rng = self._random("simulated", job)
        progress = _progress(job, job.last_step)
        noise = 0.04 * math.exp(-3 * job.last_step / job.horizon.total_steps)
        skill = min(max(curve.skill(progress) + noise * rng.gauss(), 0.0), 1.0)
        metrics = figures_of(skill, job.genome.genes, self._named)
        if not job.is_scored:
            metrics = {name: metrics[name] for name in UNSCORED}
        # Validation's noise is not training's. Earlier versions, whose jobs have no `judged_from`,
        # took the one for the other, and their runs go on so.
        learnt = skill if job.judged_from is None else curve.skill(progress)
        gain, norm = learnt - 0.45, 0.6 + 0.3 * rng.random()
        # What explodes once warm-up is over shows signs of it before, so that the rules of a first
        # stage have something to stop; in earlier versions they had not.
        if curve.explodes and job.judged_from is not None:
            gain, norm = -0.5, 100.0 * norm
        metrics["loss_slope"] = -gain / max(job.last_step - job.first_step, 1)
        metrics["gradient_norm"] = norm
        return metrics

    def _random(self, purpose: str, job: Job | DeriveJob) -> Random:
        return Random(derive_seed(self._seed, purpose, job.genome.id, job.stage))  # noqa: S311

    def _keep(self, job: Job | DeriveJob, adapter: SimulatedAdapter, state: dict[str, Any]) -> None:
        """Write the job's checkpoint, or where it has none remember the adapter."""
        if job.checkpoint is None:
            self._adapters[job.genome.id] = adapter
            return
        state = {**state, "adapter": adapter.values}
        folder = Path(job.checkpoint)
        write_folder(folder, lambda made: _write_json(made / STATE, state), syncs=False)

    def derive(self, job: DeriveJob, beat: Beat = no_beat) -> Derived:
        beat()
        if job.genome.derived is None:
            raise NotDerivable(f"{job.genome.id} is no derived genome")
        sources = list(self._sources(job))
        adapter, derivation = derive(self._seed, job.genome.id, job.genome.derived, sources)
        genome = replace(
            job.genome, genes=replace(job.genome.genes, rank=adapter.rank), derived=derivation
        )
        noise = 0.002 * self._random("simulated", job).gauss()
        skill = min(max(adapter.skill + noise, 0.0), 1.0)
        metrics = figures_of(skill, genome.genes, self._named, adapter)
        del metrics["train_loss"]
        self._keep(job, adapter, {"step": 0, "metrics": metrics})
        result = StageResult(
            genome=genome.id,
            stage=job.stage,
            first_step=0,
            last_step=0,
            metrics=metrics,
            judged_steps=0,
            loss_trend=None,
            train_seconds=0.0,
            eval_seconds=self._look_seconds,
            overhead_seconds=0.0,
            inherited_steps=job.inherited_steps,
            checkpoint=job.checkpoint,
            rank=adapter.rank,
        )
        return Derived(genome, result)

    def _sources(self, job: DeriveJob) -> Iterator[SimulatedAdapter]:
        """What the sources were, or could have been where a checkpoint does not say so."""
        derivation = job.genome.derived
        names = derivation.sources if derivation else ()
        for name, path in zip_longest(names, job.sources):
            text = "" if path is None else (Path(path) / STATE).read_text(encoding="utf-8")
            saved = json.loads(text or "{}").get("adapter")
            if saved is not None:
                yield adapter_from(saved)
            elif name in self._adapters:
                yield self._adapters[name]
            else:
                genes = job.genome.genes
                yield trained(self._seed, name, genes, curve_of(genes).ceiling)

    def measure(self, job: MeasureJob, beat: Beat = no_beat) -> Measurement:
        beat()
        if job.genome is None:
            validation: dict[str, float | None] = figures_of(0.5, Genes(), self._named)
            validation["trainable_parameters"] = validation["adapter_bytes"] = 0.0
        else:
            validation = dict(job.validation or {})
        subject = job.genome.id if job.genome else "base"
        rng = Random(derive_seed(self._seed, "simulated-test", subject))  # noqa: S311
        test = {}
        for name, value in sorted(validation.items()):
            if value is None or name in OF_TRAINING:
                continue
            is_count = name in COUNTS
            drawn = value if is_count else max(value + 0.01 * rng.gauss(), 0.0)
            if not is_count and split_metric_name(name)[0] not in UNBOUNDED:
                drawn = min(drawn, 1.0)
            test[name] = Interval(drawn, None, None)  # invented ends would look like evidence
        return Measurement(job.genome.id if job.genome else None, validation, test)


def _progress(job: Job, step: int) -> float:
    """The share of its horizon that a genome has trained. Steps that a child inherits count half: a
    head start, with another's settings. A copy's own steps count from those of its original."""
    head_start = 0.0 if job.genome.continues else 0.5 * job.inherited_steps
    return (step + head_start) / job.horizon.total_steps


def _divergence(job: Job, curve: Curve, losses: Sequence[float]) -> Divergence | None:
    """Where training ends before the stage does: by an explosion, or as it cannot come near the
    survivors any more; None if it does not."""
    warmed_up = max(job.first_step, job.horizon.warmup_steps)
    if curve.explodes and warmed_up < job.last_step:
        return Divergence(warmed_up + 1, "loss")
    skipped = windows_in_warmup(job)
    for place, end in enumerate(window_ends(job.last_step - job.first_step)[:-1], start=1):
        reach = unreachable(losses[:place], job.watch.survivors, skipped)
        if reach is not None:
            step = job.first_step + end
            return Divergence(step, "loss", "unreachable", reach, job.watch.survivors[-1])
    return None


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, sort_keys=True) + "\n", encoding="utf-8")
