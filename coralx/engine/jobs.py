"""From a genome and a stage to the job that a worker is given."""

from __future__ import annotations

from dataclasses import replace

from coralx.engine.state import RunState
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import DeriveJob, Horizon, Job, MeasureJob, Watch
from coralx.records.results import Metrics
from coralx.records.run_facts import Facts
from coralx.records.subjects import HEAD
from coralx.records.verdicts import Promote
from coralx.schedule.early_stopping import WINDOWS, highest_losses
from coralx.schedule.rank_growth import growth_of, shape_at
from coralx.schedule.stages import Stage, horizon_of
from coralx.schedule.stop_rules import judged_from
from coralx.storage.layout import RunLayout

HEAD_ALONE = Genome(HEAD, 0, Genes(target_modules=()))
"""A genome that adapts nothing in the base."""

HEAD_PASSES = 1000
"""The most passes over the training rows, or rather over the vectors that the head reads of them,
which are computed once."""


class JobMaker:
    """Knows budgets, horizons and checkpoints. Without a layout no checkpoint is written."""

    def __init__(self, state: RunState, facts: Facts, layout: RunLayout | None) -> None:
        config = state.config
        self._with_optimizer = config.evolution.inherit == "adapter+optimizer"
        self._saves_predictions = config.runtime.save_predictions
        self._growth = growth_of(config.hyperband_config)
        self._facts = facts
        self._state = state
        self._history = state.history
        self._layout = layout
        self._budget_of: dict[tuple[int, int, float], tuple[tuple[int, ...], Horizon]] = {}
        self._losses_of: dict[tuple[int, str, int], tuple[float, ...]] = {}
        """By generation, stage and bracket; see `_survivors_losses`."""
        self._places = {stage.name: stage.place for stage in state.stages}

    def train(self, genome: Genome, stage: Stage) -> Job:
        """Take `genome` from its previous stage's end through `stage`; one that begins with it from
        its birth, or as a copy from where the other stood at the end of the stage before."""
        budgets, horizon = self._budgets(genome)
        resume_from = inherit_from = blend_from = None
        first_step = blended = 0
        trained = genome.id if stage.place > genome.enters else genome.continues
        if trained is not None:
            resume_from = self._checkpoint(trained, self._state.stages[stage.place - 1].name)
            first_step = budgets[stage.place - 1]
        elif genome.inherits is not None:
            inherit_from = self._last_checkpoint(genome.inherits)
            if genome.blend is not None:
                blend_from = self._last_checkpoint(genome.blend.other)
                blended = self._history.joint_steps(genome.inherits, genome.blend.other)
        return Job(
            genome=genome,
            stage=stage.name,
            first_step=first_step,
            last_step=budgets[stage.place],
            horizon=horizon,
            data_fraction=float(stage.data_fraction),
            eval_limit=stage.eval_limit,
            resume_from=resume_from,
            inherit_from=inherit_from,
            inherit_optimizer=self._with_optimizer,
            inherited_steps=self._inherited_steps(genome),
            blend_from=blend_from,
            blended_steps=blended,
            shape=shape_at(genome.genes, self._growth, stage.place),
            checkpoint=self._checkpoint(genome.id, stage.name),
            watch=self._watch(genome, stage),
            partial=self._partial(genome.id, stage.name),
            micro_batch=self._micro_batch(genome, stage.place),
            predictions=self._predictions(genome.id, stage.name) if stage.is_scored else None,
            is_scored=stage.is_scored,
            judged_from=_judged_from(stage, first_step, budgets[stage.place], horizon),
        )

    def _inherited_steps(self, genome: Genome) -> int:
        """Steps that the genome's weights had seen before its birth."""
        before = self._history.last_result(genome.id)
        if before is not None:
            return before.inherited_steps
        if genome.inherits is not None:
            return self._history.lineage_steps(genome.inherits)
        if genome.continues is not None:
            # The one that it is a copy of may have gone on since.
            copied = self._state.stages[genome.enters - 1].name
            return self._history.lineage_steps(genome.continues, copied)
        return 0

    def from_scratch(self, genome: Genome) -> Job:
        """Train `genome` in one go to the last stage's total, on the last stage's share of the
        data, whatever weights others of its genes have started from."""
        stage = self._state.stages_in(genome.generation)[-1]
        budgets, horizon = self._budgets(genome)
        return Job(
            genome=genome,
            stage=stage.name,
            first_step=0,
            last_step=budgets[-1],
            horizon=horizon,
            data_fraction=float(stage.data_fraction),
            eval_limit=stage.eval_limit,
            checkpoint=self._checkpoint(genome.id, stage.name),
            partial=self._partial(genome.id, stage.name),
            micro_batch=self._micro_batch(genome, stage.place),
            predictions=self._predictions(genome.id, stage.name),
            judged_from=_judged_from(stage, 0, budgets[-1], horizon),
        )

    def head(self) -> Job:
        """Train a classifier's head alone on the frozen base, on the last stage's share of the
        training rows. Its steps are passes over them."""
        stage = self._state.stages[-1]
        return Job(
            genome=HEAD_ALONE,
            stage=stage.name,
            first_step=0,
            last_step=HEAD_PASSES,
            horizon=Horizon(HEAD_PASSES, 0),
            data_fraction=float(stage.data_fraction),
            eval_limit=stage.eval_limit,
            checkpoint=self._checkpoint(HEAD, stage.name),
            predictions=self._predictions(HEAD, stage.name),
        )

    def _watch(self, genome: Genome, stage: Stage) -> Watch:
        """What may end the job early."""
        # A baseline's figures, or a verification's, are needed however they turn out.
        if genome.id not in self._history.genomes:
            return Watch()
        # A control must come to the end though it is poor, and says nothing of who goes on.
        compares = "unreachable" in stage.stop_within and not genome.is_control
        return Watch(
            explosion="explosion" in stage.stop_within,
            survivors=self._survivors_losses(genome, stage) if compares else (),
        )

    def _survivors_losses(self, genome: Genome, stage: Stage) -> tuple[float, ...]:
        """The highest in each window of their curves; empty where there are not two."""
        key = genome.generation, stage.name, genome.bracket
        if key not in self._losses_of or self._state.succession.overlaps:
            curves = self._survivors(genome, stage)
            self._losses_of[key] = highest_losses(curves) if len(curves) > 1 else ()
        return self._losses_of[key]

    def _survivors(self, genome: Genome, stage: Stage) -> list[tuple[float, ...]]:
        """The curves of those that went on from the stage in earlier generations and the same
        bracket: never of the genome's own, which complete in any order."""
        history = self._history
        decisions = [history.decisions.get((g, stage.name)) for g in range(genome.generation)]
        promoted = [
            history.genomes[verdict.genome]
            for decision in decisions
            if decision is not None
            for verdict in decision.verdicts
            if isinstance(verdict, Promote)
        ]
        curves = [
            history.results[g.id, stage.name].curve
            for g in promoted
            if g.bracket == genome.bracket and not g.is_control
        ]
        return [curve for curve in curves if len(curve) == WINDOWS]

    def again(self, genome: Genome, stage: Stage) -> Job:
        """Train once more what the genome's checkpoint of the stage held, which was lost: nothing
        that went well then is to end it early now."""
        return replace(self.train(genome, stage), watch=Watch())

    def measure(self, genome: Genome | None, validation: Metrics | None = None) -> MeasureJob:
        """Measure a genome that finished the last stage, or the untuned base."""
        name = genome.id if genome else None
        checkpoint = self._checkpoint(name, self._state.stages[-1].name) if name else None
        scores = str(self._layout.scores(name)) if self._layout else None
        return MeasureJob(genome, checkpoint, validation, scores)

    def derive(self, genome: Genome, inherited_steps: int | None = None) -> DeriveJob:
        """Make a genome from those that it is derived from. `inherited_steps` are those that their
        lineages have trained; None: as the history has it."""
        sources = genome.derived.sources if genome.derived is not None else ()
        if inherited_steps is None:
            inherited_steps = self._history.joint_steps(*sources)
        stage = self._state.last_stage
        checkpoints = [self._checkpoint(source, stage) for source in sources]
        return DeriveJob(
            genome=genome,
            stage=stage,
            sources=tuple(path for path in checkpoints if path is not None),
            inherited_steps=inherited_steps,
            checkpoint=self._checkpoint(genome.id, stage),
            predictions=self._predictions(genome.id, stage),
        )

    def _budgets(self, genome: Genome) -> tuple[tuple[int, ...], Horizon]:
        """The genome's total steps at each stage's end, and its learning-rate horizon."""
        # All that budgets and horizon depend on; a stage's jobs ask for them again and again.
        key = (genome.generation, genome.genes.batch_size, genome.genes.warmup_ratio)
        if key not in self._budget_of:
            stages = self._state.stages_in(genome.generation)
            steps = self._facts.steps_per_epoch(genome.genes.batch_size)
            budgets = tuple(stage.trained_steps(steps) for stage in stages)
            horizon = horizon_of(stages, steps, genome.genes.warmup_ratio)
            self._budget_of[key] = budgets, horizon
        return self._budget_of[key]

    def _last_checkpoint(self, genome: str) -> str | None:
        result = self._history.last_result(genome)
        if result is None:
            raise LookupError(f"{genome} has completed no stage")
        return self._checkpoint(genome, result.stage)

    def _micro_batch(self, genome: Genome, place: int) -> int | None:
        """How many rows at once the last genome of this size could train with, if memory did not
        suffice for all; the ledger remembers, so a resumed run does not find out again. What others
        of its generation find out counts later: it would depend on who was first."""
        size = self._size(genome, place)
        places = self._places
        # The last one first: what it ran out of is nearest to the memory that is there now.
        for result in reversed(self._history.narrowed):
            other = self._history.genomes.get(result.genome)
            if other is None or self._size(other, places[result.stage]) != size:
                continue
            if other.id == genome.id or other.generation != genome.generation:
                return result.micro_batch
        return None

    def _size(self, genome: Genome, place: int) -> tuple[object, ...]:
        """What decides how much memory a genome takes at a stage."""
        genes = genome.genes
        rank = shape_at(genes, self._growth, place).rank
        return rank, genes.batch_size, genes.target_modules, genes.use_dora, genes.layers

    def _partial(self, genome: str, stage: str) -> str | None:
        return str(self._layout.partial(genome, stage)) if self._layout else None

    def _predictions(self, genome: str, stage: str) -> str | None:
        if self._layout is None or not self._saves_predictions:
            return None
        return str(self._layout.predictions(genome, stage))

    def _checkpoint(self, genome: str, stage: str) -> str | None:
        return str(self._layout.checkpoint(genome, stage)) if self._layout else None


def _judged_from(stage: Stage, first: int, last: int, horizon: Horizon) -> int | None:
    return judged_from(first, last, horizon.warmup_steps) if stage.judges_warmup else None
