"""Simulated learning curves: the same search at no cost. Its figures are never evidence.

Skill follows a saturating curve, floor + (ceiling - floor) (1 - exp(-progress / pace)), whose
ceiling and pace depend on rank, learning rate, dropout and modules. Noise falls as training goes on
and is drawn from (seed, genome, stage), so that equal runs agree exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from coralx.backends.protocol import Beat, Report, Say, no_beat
from coralx.config.metric_catalogue import Direction, metric_entry, split_metric_name
from coralx.config.schema import Config
from coralx.records.genomes import ALL_LINEAR, Genes
from coralx.records.jobs import Job, MeasureJob
from coralx.records.results import Divergence, Interval, Measurement, Progress, StageResult, Trend
from coralx.records.run_facts import REVISION, Facts
from coralx.rng import derive_seed
from coralx.schedule.early_stopping import WINDOWS, unreachable, window_ends, windows_in_warmup
from coralx.system.files import write_folder

HIDDEN = 384
LAYERS = 6
"""Width and depth of the simulated base, MiniLM's, for plausible numbers of parameters."""

SECONDS_PER_STEP = 0.2
EVAL_SECONDS = 2.0

COUNTS = ("trainable_parameters", "adapter_bytes", "memory", "latency_ms")
"""Figures that are the same on every split."""

OF_TRAINING = ("gradient_norm", "loss_slope", "train_loss")
"""Figures that a final measurement does not have."""

UNBOUNDED = ("eval_loss", "perplexity")
"""Figures that may lie above 1."""

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
    everywhere = genes.target_modules == ALL_LINEAR
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

    def devices(self) -> tuple[str, int]:
        return "none", 1

    def prepare(
        self,
        config: Config,
        precision: str | None,
        threads: int,
        say: Say,
        revision: int = REVISION,
    ) -> Facts:
        self._seed = config.experiment.seed
        self._named = {
            name: config.direction_of(name)
            for name in config.named_metrics
            if metric_entry(name).source in ("predictions", "user")
        }
        self.base_loads += 1
        return Facts(
            backend="simulated",
            backend_reason="simulated learning curves; nothing is trained",
            device="none",
            device_count=0,
            precision="none",
            precision_reason="nothing is trained",
            base_parameters=0,
            rows={"train": config.known_rows, "validation": 0, "test": 0},
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
        if job.checkpoint is not None and divergence is None:
            state = {"step": job.last_step, "metrics": metrics}
            write_folder(
                Path(job.checkpoint),
                lambda folder: _write_json(folder / "trainer_state.json", state),
            )
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
        metrics = _metrics(skill, job.genome.genes, self._named)
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

    def _random(self, purpose: str, job: Job) -> Random:
        return Random(derive_seed(self._seed, purpose, job.genome.id, job.stage))  # noqa: S311

    def measure(self, job: MeasureJob, beat: Beat = no_beat) -> Measurement:
        beat()
        if job.genome is None:
            validation: dict[str, float | None] = _metrics(0.5, Genes(), self._named)
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


def parameters_of(genes: Genes) -> int:
    """Parameters that an adapter of the simulated base has."""
    return 2 * HIDDEN * genes.rank * _modules(genes) * LAYERS


def _modules(genes: Genes) -> int:
    return 7 if genes.target_modules == ALL_LINEAR else len(genes.target_modules)


def _metrics(
    skill: float, genes: Genes, named: Mapping[str, Direction] | None = None
) -> dict[str, float | None]:
    """All figures that go with a skill (AUROC), by plausible relations.

    Of those `named`, which only a config can name, a single task's is that of all tasks, and the
    user's own metric is the skill, or where it is to be minimised 1 - skill.
    """
    accuracy = 0.5 + 0.85 * (skill - 0.5)
    modules = _modules(genes)
    parameters = parameters_of(genes)
    metrics: dict[str, float | None] = {
        "auroc": skill,
        "task_skill": skill,
        "robustness": 0.5 + 0.8 * (skill - 0.5),
        "safety": 1.0 - 0.5 * skill + 0.1 * genes.dropout,
        "false_positive_cost": 1.8 * (1.0 - skill),
        "brier": 0.25 - 0.4 * (skill - 0.5),
        "memory": 1e6 + 4.0 * parameters,
        "latency_ms": 10.0 + 0.1 * modules,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "f1": accuracy,
        "precision": accuracy,
        "recall": accuracy,
        "calibration": 0.02 + 0.1 * genes.learning_rate / 5e-3,
        "calibration_scaled": 0.02,
        "eval_loss": 0.7 * (1.5 - skill),
        "perplexity": math.exp(0.7 * (1.5 - skill)),
        "train_loss": 0.65 * (1.5 - skill),
        "trainable_parameters": float(parameters),
        "adapter_bytes": float(4 * parameters),
    }
    for name, direction in (named or {}).items():
        own = skill if direction == "maximize" else 1.0 - skill
        metrics[name] = metrics.get(split_metric_name(name)[0], own)
    return metrics
