"""The one loop: generations of genomes through stages, every event into the ledger.

Each step first asks the history whether it was taken before; so a resumed run replays recorded
decisions and goes on where the ledger ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coralx.config import Config
from coralx.config.metrics import CATALOGUE
from coralx.config.schema import Objective
from coralx.events import (
    BudgetSpent,
    GenerationCompleted,
    GenerationStarted,
    GenomeFailed,
    StageCompleted,
    StageDecided,
)
from coralx.execution.executor import Executor
from coralx.facts import Facts
from coralx.files import verify_folder
from coralx.records import Genome, JobFailed, StageResult
from coralx.run.allowance import Allowance
from coralx.run.checkpoints import is_intact, prune
from coralx.run.convergence import has_stalled
from coralx.run.finale import default_finisher, front_of, measure, train_baseline, wants_baseline
from coralx.run.history import BASELINE, History
from coralx.run.jobs import JobMaker
from coralx.run.layout import RunLayout
from coralx.run.ledger import Ledger
from coralx.schedule.promotion import decide
from coralx.schedule.rules import judge
from coralx.schedule.stages import Stage, schedule_of
from coralx.search.nsga2 import Standing, founders, offspring, survival_order
from coralx.search.pareto import as_minimised, best_first
from coralx.search.space import own_recipes, space_of
from coralx.training.memory import tight, too_large
from coralx.verdicts import Promote


def next_stage(config: Config, history: History) -> tuple[int, Stage] | None:
    """The generation and stage that are to be trained next; None when all are decided, or when the
    search has stalled."""
    stages = schedule_of(config.hyperband_config)
    for generation in range(config.evolution.generations):
        is_new = generation not in history.generations
        if is_new and has_stalled(config, history, stages[-1].name):
            return None
        for stage in stages:
            if (generation, stage.name) not in history.decisions:
                return generation, stage
    return None


class Engine:
    """One run of the search. Without a layout nothing is written: a plan, not a run.

    `given` genomes form generation 0 as they are; otherwise it is founded from the search space.
    """

    def __init__(
        self,
        config: Config,
        facts: Facts,
        executor: Executor,
        ledger: Ledger,
        layout: RunLayout | None,
        *,
        allowance: Allowance | None = None,
        given: Sequence[Genome] = (),
    ) -> None:
        self.config = config
        self.executor = executor
        self.ledger = ledger
        self.layout = layout
        self.allowance = allowance or Allowance(config.budget)
        self.given = tuple(given)
        self.is_exhausted = False
        self.history = History(ledger)
        ledger.subscribe(self.history.apply)
        self.space = space_of(config)
        self.evolution = config.evolution
        self.stages = schedule_of(config.hyperband_config)
        self.jobs = JobMaker(config, facts, self.stages, self.history, layout)
        self.footprint = facts.footprint
        if not config.hyperband_config.enable_hyperband:  # the naive baseline never inherits
            self.evolution = config.evolution.model_copy(update={"inherit": "off"})

    def run(self) -> None:
        """Search to the end (or the budget's), then measure baselines and front."""
        self.search()
        self.finish()

    def finish(self) -> None:
        """Measure what the search brought; train and measure the baseline if it is wanted."""
        for generation in self.history.generations:
            if (generation, self.stages[-1].name) in self.history.decisions:
                self._survive(generation)
        shared = (self.config, self.executor, self.ledger, self.history, self.jobs)
        measure(*shared)
        is_wanted = wants_baseline(self.config, self.history, self.stages[-1].name)
        if is_wanted and self.history.budget_spent is None:
            train_baseline(*shared, self.allowance.deadline)
            measure(*shared)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train and all that is on the front is measured."""
        return not self.has_more and set(self.front()) <= set(self.history.measurements)

    @property
    def has_more(self) -> bool:
        """Whether a later process could train further stages: the budget may grow."""
        if self.history.budget_spent is not None:
            return True
        return not self.is_exhausted and next_stage(self.config, self.history) is not None

    def front(self) -> tuple[str, ...]:
        """Non-dominated genomes among those that finished the last stage, best skill first."""
        return front_of(self.config, self.history, self.stages[-1].name)

    def search(self) -> tuple[str, ...]:
        """Train stage after stage until none is left or the budget is spent; returns the front."""
        while (following := next_stage(self.config, self.history)) is not None:
            if not self.train_stage(*following):
                break
        return self.front()

    def train_stage(self, generation: int, stage: Stage) -> bool:
        """Take every genome that may enter through one stage, and decide who goes on.

        False where that cannot be: the space holds no further genome, or the budget is spent.
        """
        population = self._population(generation)
        if not population:
            self.is_exhausted = True
            return False
        entered = self._entered(population, generation, stage)
        if not self._train(entered, stage, generation):
            return False
        self._decide(entered, stage, generation)
        if stage.is_last:
            self._survive(generation)
        self._prune()
        return True

    # -- who is in it ----------------------------------------------------------------------------

    def _population(self, generation: int) -> tuple[Genome, ...]:
        """The genomes of a generation: as recorded, else founded or bred."""
        if generation in self.history.generations:
            return self.history.generations[generation]
        if generation:
            self._survive(generation - 1)
        seed = self.config.experiment.seed
        if generation == 0 and self.given:
            genomes = list(self.given)
        elif generation == 0:
            own = own_recipes(self.config, self.space)
            genomes = founders(self.space, self.evolution.population_size, seed, own)
        else:
            parents = self.history.populations[generation - 1]
            genomes = offspring(
                population=[self.history.genomes[genome] for genome in parents],
                seen=[genome.genes for genome in self.history.genomes.values()],
                donors=self._donors(parents),
                space=self.space,
                evolution=self.evolution,
                generation=generation,
                seed=seed,
            )
        if genomes:
            wanted = len(self.given) or self.evolution.population_size
            short = (
                f"the search space holds no more configurations: {len(genomes)} of {wanted} genomes"
            )
            warnings = tight(self.footprint, genomes, self.config.model.max_length)
            if len(genomes) < wanted:
                warnings = (short, *warnings)
            self.ledger.append(GenerationStarted(generation, tuple(genomes), warnings))
        return tuple(genomes)

    def _donors(self, genomes: Sequence[str]) -> list[str]:
        """Those that have weights which never ran into numbers that are not finite."""
        if self.evolution.inherit == "off":
            return []
        diverged = {r.genome for r in self.history.results.values() if r.divergence is not None}
        return [g for g in genomes if g not in diverged and self.history.last_result(g) is not None]

    def _entered(
        self, population: Sequence[Genome], generation: int, stage: Stage
    ) -> tuple[Genome, ...]:
        """The genomes that the previous stage promoted; all of them for the first stage."""
        if stage.place == 0:
            return tuple(population)
        previous = self.history.decisions[generation, self.stages[stage.place - 1].name]
        promoted = {v.genome for v in previous.verdicts if isinstance(v, Promote)}
        return tuple(genome for genome in population if genome.id in promoted)

    # -- training --------------------------------------------------------------------------------

    def _train(self, genomes: Sequence[Genome], stage: Stage, generation: int) -> bool:
        """Train every genome that has no result for the stage yet; False if the budget ends it."""
        self._refuse_too_large(genomes, stage, generation)
        pending = [genome for genome in genomes if not self._is_done(genome.id, stage)]
        wanted = [self.jobs.train(genome, stage) for genome in pending]
        jobs = self.allowance.affordable(wanted, self.history.trained_steps)
        for source in {job.resume_from or job.inherit_from for job in jobs} - {None}:
            verify_folder(Path(str(source)))
        done = 0
        for outcome in self.executor.run(jobs, self.allowance.deadline):
            done += 1
            match outcome:
                case StageResult():
                    self.ledger.append(StageCompleted(generation, outcome))
                case JobFailed(genome=str(genome), reason=reason):
                    self.ledger.append(GenomeFailed(generation, genome, stage.name, reason))
                case _:
                    raise TypeError(f"a training job brought {outcome!r}")
        if done < len(wanted):
            self.ledger.append(BudgetSpent(self.allowance.limits))
        return done == len(wanted)

    def _refuse_too_large(self, genomes: Sequence[Genome], stage: Stage, generation: int) -> None:
        """Fail genomes that no worker could hold, rather than have each fail on every attempt."""
        for genome in genomes:
            reason = too_large(self.footprint, genome.genes)
            if reason is not None and not self._is_done(genome.id, stage):
                self.ledger.append(GenomeFailed(generation, genome.id, stage.name, reason))

    def _is_done(self, genome: str, stage: Stage) -> bool:
        if genome in self.history.failures:
            return True
        result = self.history.results.get((genome, stage.name))
        if result is None:
            return False
        if result.checkpoint is None or self.layout is None:
            return True
        return is_intact(self.layout, genome, stage.name)

    # -- decisions -------------------------------------------------------------------------------

    def _decide(self, genomes: Sequence[Genome], stage: Stage, generation: int) -> None:
        """Apply stop rules, then the survival rate, and record every verdict."""
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
        last_stage = self.stages[-1].name
        default = default_finisher(self.config, self.history, last_stage)
        living.update([default] if default else [])
        last = {genome: self.history.last_result(genome) for genome in living}
        needed = {(genome, result.stage) for genome, result in last.items() if result}
        prune(self.layout, needed | {(BASELINE, stage) for stage in self.history.baseline})
