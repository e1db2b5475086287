"""From a genome and a stage to the job that a worker is given."""

from __future__ import annotations

from coralx.config import Config
from coralx.facts import Facts
from coralx.records import Genome, Horizon, Job, MeasureJob, Metrics
from coralx.run.history import History
from coralx.run.layout import RunLayout
from coralx.schedule.stages import Stage, horizon_of


class JobMaker:
    """Knows budgets, horizons and checkpoints. Without a layout no checkpoint is written."""

    def __init__(
        self,
        config: Config,
        facts: Facts,
        stages: tuple[Stage, ...],
        history: History,
        layout: RunLayout | None,
    ) -> None:
        self._with_optimizer = config.evolution.inherit == "adapter+optimizer"
        self._facts = facts
        self.stages = stages
        self._history = history
        self._layout = layout
        self._budget_of: dict[tuple[int, float], tuple[tuple[int, ...], Horizon]] = {}

    def train(self, genome: Genome, stage: Stage) -> Job:
        """Take `genome` from its previous stage's end through `stage`."""
        budgets, horizon = self._budgets(genome)
        previous = self.stages[stage.place - 1] if stage.place else None
        resume_from = inherit_from = None
        if previous is not None:
            resume_from = self._checkpoint(genome.id, previous.name)
        elif genome.inherits is not None:
            inherit_from = self._checkpoint(genome.inherits, self._last_stage(genome.inherits))
        inherited = self._history.lineage_steps(genome.inherits) if genome.inherits else 0
        return Job(
            genome=genome,
            stage=stage.name,
            first_step=budgets[previous.place] if previous else 0,
            last_step=budgets[stage.place],
            horizon=horizon,
            data_fraction=float(stage.data_fraction),
            eval_limit=stage.eval_limit,
            resume_from=resume_from,
            inherit_from=inherit_from,
            inherit_optimizer=self._with_optimizer,
            inherited_steps=inherited,
            checkpoint=self._checkpoint(genome.id, stage.name),
        )

    def measure(self, genome: Genome | None, validation: Metrics | None = None) -> MeasureJob:
        """Measure a genome that finished the last stage, or the untuned base."""
        if genome is None:
            return MeasureJob(None, None)
        checkpoint = self._checkpoint(genome.id, self.stages[-1].name)
        return MeasureJob(genome, checkpoint, validation)

    def _budgets(self, genome: Genome) -> tuple[tuple[int, ...], Horizon]:
        """The genome's total steps at each stage's end, and its learning-rate horizon."""
        key = (genome.genes.batch_size, genome.genes.warmup_ratio)
        if key not in self._budget_of:
            steps = self._facts.steps_per_epoch(key[0])
            budgets = tuple(stage.trained_steps(steps) for stage in self.stages)
            self._budget_of[key] = budgets, horizon_of(self.stages, steps, key[1])
        return self._budget_of[key]

    def _last_stage(self, genome: str) -> str:
        result = self._history.last_result(genome)
        if result is None:
            raise LookupError(f"{genome} has completed no stage")
        return result.stage

    def _checkpoint(self, genome: str, stage: str) -> str | None:
        return str(self._layout.checkpoint(genome, stage)) if self._layout else None
