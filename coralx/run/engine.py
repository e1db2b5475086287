"""The one loop: generations of genomes through stages, every event into the ledger.

Each step first asks the history whether it was taken before; so a resumed run replays recorded
decisions and goes on where the ledger ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from coralx.config import Config
from coralx.config.metrics import CATALOGUE
from coralx.config.schema import Objective
from coralx.errors import WorkerError
from coralx.events import (
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeFailed,
    StageCompleted,
    StageDecided,
)
from coralx.execution.executor import Executor
from coralx.records import (
    Facts,
    Genome,
    Horizon,
    Job,
    JobFailed,
    MeasureJob,
    Measurement,
    Promote,
    StageResult,
    Verdict,
)
from coralx.run.checkpoints import is_intact, prune
from coralx.run.history import History
from coralx.run.layout import RunLayout
from coralx.run.ledger import Ledger
from coralx.schedule.promotion import decide
from coralx.schedule.rules import judge
from coralx.schedule.stages import Stage, horizon_of, schedule_of
from coralx.search.nsga2 import Standing, founders, offspring, survival_order
from coralx.search.pareto import as_minimised, best_first, front
from coralx.search.space import default_recipe, space_of


class Engine:
    """One run of the search. Without a layout nothing is written: a plan, not a run."""

    def __init__(
        self,
        config: Config,
        facts: Facts,
        executor: Executor,
        ledger: Ledger,
        layout: RunLayout | None,
    ) -> None:
        self.config = config
        self.facts = facts
        self.executor = executor
        self.ledger = ledger
        self.layout = layout
        self.history = History(ledger)
        ledger.subscribe(self.history.apply)
        self.space = space_of(config)
        self.evolution = config.evolution
        self._budget_of: dict[tuple[int, float], tuple[tuple[int, ...], Horizon]] = {}
        self.stages = schedule_of(config.hyperband_config)
        if not config.hyperband_config.enable_hyperband:  # the naive baseline never inherits
            self.evolution = config.evolution.model_copy(update={"inherit": "off"})

    def run(self) -> tuple[str, ...]:
        """Search to the end, then measure the front; returns the front's genome ids."""
        front = self.search()
        self._measure()
        return front

    def search(self) -> tuple[str, ...]:
        """The search from where the ledger ends to its end; returns the front's genome ids."""
        for generation in range(self.evolution.generations):
            genomes = self._population(generation)
            if not genomes:
                break
            entered = genomes
            for stage in self.stages:
                self._train(entered, stage, generation)
                verdicts = self._decide(entered, stage, generation)
                going_on = {v.genome for v in verdicts if isinstance(v, Promote)}
                entered = tuple(genome for genome in entered if genome.id in going_on)
                self._prune()
            self._survive(generation)
            self._prune()  # the population decides anew which checkpoints may be parents'
        return self.front()

    # -- who is in it ----------------------------------------------------------------------------

    def _population(self, generation: int) -> tuple[Genome, ...]:
        """The genomes of a generation: as recorded, else founded or bred."""
        if generation in self.history.generations:
            return self.history.generations[generation]
        seed = self.config.experiment.seed
        if generation == 0:
            genomes = founders(self.space, self.evolution.population_size, seed)
        else:
            parents = self.history.populations[generation - 1]
            genomes = offspring(
                population=[self.history.genomes[genome] for genome in parents],
                seen=[genome.genes for genome in self.history.genomes.values()],
                donors=[genome for genome in parents if self._may_donate(genome)]
                if self.evolution.inherit != "off"
                else [],
                space=self.space,
                evolution=self.evolution,
                generation=generation,
                seed=seed,
            )
        if genomes:
            self.ledger.append(GenerationStarted(generation, tuple(genomes)))
        return tuple(genomes)

    def _may_donate(self, genome: str) -> bool:
        """Whether the genome has weights, and they never ran into numbers that are not finite."""
        stopped = self.history.stop_of(genome)
        diverged = stopped is not None and self.history.results[genome, stopped[0]].divergence
        return self.history.last_result(genome) is not None and not diverged

    # -- training --------------------------------------------------------------------------------

    def _train(self, genomes: Sequence[Genome], stage: Stage, generation: int) -> None:
        """Train every genome that has no result for the stage yet."""
        pending = [genome for genome in genomes if not self._is_done(genome.id, stage)]
        for outcome in self.executor.run([self._job(genome, stage) for genome in pending]):
            match outcome:
                case StageResult():
                    self.ledger.append(StageCompleted(generation, outcome))
                case JobFailed(genome=str(genome), reason=reason):
                    self.ledger.append(GenomeFailed(generation, genome, stage.name, reason))
                case _:
                    raise TypeError(f"a training job brought {outcome!r}")

    def _is_done(self, genome: str, stage: Stage) -> bool:
        if genome in self.history.failures:
            return True
        result = self.history.results.get((genome, stage.name))
        if result is None:
            return False
        decided = (self.history.genomes[genome].generation, stage.name) in self.history.decisions
        if decided or result.checkpoint is None or self.layout is None:
            return True
        return is_intact(self.layout, genome, stage.name)

    def _job(self, genome: Genome, stage: Stage) -> Job:
        budgets, horizon = self._budgets(genome)
        previous = self.stages[stage.place - 1] if stage.place else None
        donor = genome.inherits if previous is None else None
        resume_from = inherit_from = None
        if previous is not None:
            resume_from = self._checkpoint(genome.id, previous.name)
        elif donor is not None:
            inherit_from = self._checkpoint(donor, self._last_stage(donor))
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
            inherit_optimizer=self.evolution.inherit == "adapter+optimizer",
            inherited_steps=self.history.lineage_steps(genome.inherits) if genome.inherits else 0,
            checkpoint=self._checkpoint(genome.id, stage.name),
        )

    def _budgets(self, genome: Genome) -> tuple[tuple[int, ...], Horizon]:
        """The genome's total steps at each stage's end, and its learning-rate horizon."""
        key = (genome.genes.batch_size, genome.genes.warmup_ratio)
        if key not in self._budget_of:
            steps = self.facts.steps_per_epoch(key[0])
            budgets = tuple(stage.trained_steps(steps) for stage in self.stages)
            self._budget_of[key] = budgets, horizon_of(self.stages, steps, key[1])
        return self._budget_of[key]

    def _last_stage(self, genome: str) -> str:
        result = self.history.last_result(genome)
        if result is None:
            raise LookupError(f"{genome} has completed no stage")
        return result.stage

    def _checkpoint(self, genome: str, stage: str) -> str | None:
        return str(self.layout.checkpoint(genome, stage)) if self.layout else None

    # -- decisions -------------------------------------------------------------------------------

    def _decide(
        self, genomes: Sequence[Genome], stage: Stage, generation: int
    ) -> Sequence[Verdict]:
        recorded = self.history.decisions.get((generation, stage.name))
        if recorded is not None:
            return recorded.verdicts
        failures = self.history.failures
        failed = {g.id: failures[g.id].reason for g in genomes if g.id in failures}
        results = [self.history.results[g.id, stage.name] for g in genomes if g.id not in failed]
        judgement = judge(stage.stop_when, results)
        sound = [result for result in results if result.genome not in judgement.breaches]
        verdicts = decide(
            stage, results, self._promotion_order(stage, sound), judgement.breaches, failed
        )
        event = StageDecided(
            generation, stage.name, verdicts, judgement.not_judged, judgement.warnings
        )
        self.ledger.append(event)
        return verdicts

    def _promotion_order(self, stage: Stage, results: Sequence[StageResult]) -> list[str]:
        """Best first: by `promote_by` where the stage names a metric, else by the objectives."""
        objectives = self.config.objectives
        if stage.promote_by is not None:
            direction = CATALOGUE[stage.promote_by].direction
            objectives = (Objective(metric=stage.promote_by, direction=direction),)
        points = as_minimised([result.metrics for result in results], objectives)
        return best_first([r.genome for r in results], points, keep_first_objective=True)

    def _survive(self, generation: int) -> None:
        """The parents of the next generation: the best of the old population and the newborn."""
        if generation in self.history.populations:
            return
        old = self.history.populations.get(generation - 1, ())
        newborn = [genome.id for genome in self.history.generations[generation]]
        standings = [self._standing(genome) for genome in (*old, *newborn)]
        order = survival_order(standings, self.config.objectives)
        survivors = tuple(order[: self.evolution.population_size])
        self.ledger.append(GenerationCompleted(generation, survivors))

    def _standing(self, genome: str) -> Standing:
        result = self.history.last_result(genome)
        places = {stage.name: stage.place for stage in self.stages}
        return Standing(
            genome=genome,
            place=places[result.stage] if result else -1,
            metrics=result.metrics if result else {},
            taken_out=self.history.is_taken_out(genome),
        )

    # -- the end ---------------------------------------------------------------------------------

    def _prune(self) -> None:
        """Drop checkpoints that neither resume, inheritance, front nor baseline can need."""
        if self.layout is None or self.config.runtime.keep_checkpoints == "all":
            return
        generation = max(self.history.generations)
        if generation in self.history.populations:
            living = set(self.history.populations[generation])
        else:
            living = {genome.id for genome in self.history.generations[generation]}
            living.update(self.history.populations.get(generation - 1, ()))
        living.update(self.front())
        living.update(self._default_finisher())
        last = {genome: self.history.last_result(genome) for genome in living}
        prune(self.layout, {(genome, result.stage) for genome, result in last.items() if result})

    def front(self) -> tuple[str, ...]:
        """Non-dominated genomes among those that finished the last stage, best skill first."""
        last = self.stages[-1].name
        finished = self.history.finished(last)
        figures = [self.history.results[genome, last].metrics for genome in finished]
        points = as_minimised(figures, self.config.objectives)
        members = front(finished, points)
        by_id = dict(zip(finished, points[:, 0], strict=True))
        return tuple(sorted(members, key=lambda genome: (by_id[genome], genome)))

    def _measure(self) -> None:
        """Baselines and front, once, on the test split that nothing else has touched."""
        last = self.stages[-1].name
        jobs = [MeasureJob(None, None)]
        for genome in dict.fromkeys((*self.front(), *self._default_finisher())):
            validation = self.history.results[genome, last].metrics
            checkpoint = self._checkpoint(genome, last)
            jobs.append(MeasureJob(self.history.genomes[genome], checkpoint, validation))
        pending = [
            job
            for job in jobs
            if (job.genome.id if job.genome else None) not in self.history.measurements
        ]
        for outcome in self.executor.run(pending):
            match outcome:
                case Measurement():
                    self.ledger.append(FrontMeasured(outcome))
                case JobFailed():
                    raise WorkerError(f"measuring {outcome.genome or 'the base'}: {outcome.reason}")
                case _:
                    raise TypeError(f"a measuring job brought {outcome!r}")

    def _default_finisher(self) -> tuple[str, ...]:
        """The genome that is the default recipe, if it finished the last stage."""
        recipe = default_recipe(self.space)
        finished = self.history.finished(self.stages[-1].name)
        return tuple(g for g in finished if self.history.genomes[g].genes == recipe)
