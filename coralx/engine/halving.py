"""Synchronous promotion: a round is a stage of a generation, decided once all have trained it
(successive halving, Jamieson and Talwalkar 2016), or after the last one a round of derivations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from coralx.engine.certain_promotions import CertainPromotions, is_unconditional
from coralx.engine.context import RunContext
from coralx.engine.convergence import has_stalled
from coralx.engine.derivation import DerivationPhase
from coralx.engine.job_order import longest_first
from coralx.engine.population import Population
from coralx.engine.stage_decisions import decide_stage
from coralx.engine.state import RunState
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob, Job
from coralx.records.verdicts import Promote
from coralx.schedule.stages import Stage
from coralx.storage.checkpoints import is_whole


def next_stage(state: RunState) -> tuple[int, Stage] | None:
    """The generation and stage that are to be trained next; None when all are decided, or when the
    search has stalled."""
    for generation in range(state.config.evolution.generations):
        is_new = generation not in state.history.generations
        if is_new and has_stalled(state):
            return None
        for stage in state.stages_in(generation):
            if (generation, stage.name) not in state.history.decisions:
                return generation, stage
    return None


class Halving:
    """The `Scheduler` of stages that are decided as a whole."""

    def __init__(
        self, context: RunContext, population: Population, derivation: DerivationPhase
    ) -> None:
        self._context = context
        self._state = context.state
        self._history = context.history
        self._population = population
        self._derivation = derivation
        self._is_exhausted = False
        self._under_way: set[str] = set()
        """Whom jobs are about that were given out, of this round or ahead of it."""
        self._awaited: set[str] = set()
        """Whose outcome the round waits for."""
        self._derivations: list[DeriveJob] = []
        """The round, where it is one of derivations."""
        # Else its stage, who entered that, and what is left to train of it.
        self._generation = 0
        self._stage = self._state.stages[0]
        self._entered: tuple[Genome, ...] = ()
        self._jobs: list[Job] = []

    def begin(self, under_way: Collection[str]) -> list[Path] | None:
        """Take up what is to be derived of a generation that has trained, or the next stage, with
        every genome that may enter it. None also where the search space holds no further genome."""
        self._under_way = set(under_way)
        self._derivations = self._conclude()
        if self._derivations:
            self._awaited = {job.genome.id for job in self._derivations}
            return [Path(source) for job in self._derivations for source in job.sources]
        due = next_stage(self._state)
        if due is None:
            return None
        self._generation, stage = due
        population = self._population.of(self._generation)
        if not population:
            self._is_exhausted = True
            return None
        # A new generation's budgets are known only now.
        self._stage = self._state.stages_in(self._generation)[stage.place]
        self._entered = self._entering(population)
        untrained = self._untrained(self._entered, self._stage)
        self._awaited = {genome.id for genome in untrained}
        waiting = [genome for genome in untrained if genome.id not in self._under_way]
        jobs = [self._context.jobs.train(genome, self._stage) for genome in waiting]
        # Of a budget of steps the order decides who is trained at all.
        is_free = self._is_shared and not self._context.allowance.counts_steps
        self._jobs = longest_first(jobs, self._history) if is_free else jobs
        return [Path(source) for job in self._affordable() for source in job.sources]

    def jobs(self, *, ahead: bool) -> Iterator[Job | DeriveJob | None]:
        """All of the round at once: what they are does not depend on one another's outcomes. While
        the last ones are waited for, those of later stages of which that holds, too."""
        for job in self._derivations or self._affordable():
            yield self._given_out(job)
        ahead = ahead and not self._derivations and not self._context.allowance.counts_steps
        certain = CertainPromotions(self._state, self._stage, self._generation, self._entered)
        while self._awaited & self._under_way:
            early = self._early(certain) if ahead else None
            yield None if early is None else self._given_out(early)

    def done(self, genome: str) -> bool:
        """Nothing is decided before the stage is. But who trained ahead of it has left a checkpoint
        behind."""
        is_ahead = genome not in self._awaited
        self._under_way.discard(genome)
        self._awaited.discard(genome)
        return is_ahead

    def end(self) -> bool:
        """Decide the stage, if all its jobs brought an outcome; after the last stage, once nothing
        is left to derive, who survives."""
        if self._awaited:
            return False
        if not self._derivations:
            decision = decide_stage(self._state, self._stage, self._generation, self._entered)
            self._context.ledger.append(decision)
        self._conclude()
        return True

    @property
    def has_more(self) -> bool:
        """Whether a stage is left to train, or something to derive."""
        if self.is_deriving:
            return True
        return not self._is_exhausted and next_stage(self._state) is not None

    @property
    def is_deriving(self) -> bool:
        """Whether a generation has trained whose survivors are not chosen yet."""
        return bool(self._unconcluded())

    def _entering(self, population: Sequence[Genome]) -> tuple[Genome, ...]:
        """The genomes that the previous stage promoted, and those that begin with this one."""
        place = self._stage.place
        promoted: set[str] = set()
        if place:
            previous = self._state.stages[place - 1].name
            decision = self._history.decisions[self._generation, previous]
            promoted = {v.genome for v in decision.verdicts if isinstance(v, Promote)}
        return tuple(g for g in population if g.enters == place or g.id in promoted)

    def _untrained(self, genomes: Sequence[Genome], stage: Stage) -> list[Genome]:
        """Those that have no outcome of the stage yet. Who is too large for it gets one here."""
        untrained = [g for g in genomes if not self._history.is_done(g.id, stage.name)]
        return [g for g in untrained if not self._population.is_too_large(g, stage)]

    def _given_out(self, job: Job | DeriveJob) -> Job | DeriveJob:
        self._under_way.add(job.genome.id)
        return job

    def _early(self, certain: CertainPromotions) -> Job | None:
        """A job of a later stage that will be due whatever this one's outcomes bring; of the
        earliest such stage. None where there is none now, or where what it starts from is not
        whole: that is made again between rounds."""
        stages = self._state.stages_in(self._generation)
        population = self._history.generations[self._generation]
        going_on = certain.so_far()
        for stage in stages[self._stage.place + 1 :]:
            begin_here = [genome for genome in population if genome.enters == stage.place]
            untrained = self._untrained([*going_on, *begin_here], stage)
            waiting = [genome for genome in untrained if genome.id not in self._under_way]
            jobs = [self._context.jobs.train(genome, stage) for genome in waiting]
            for job in longest_first(jobs, self._history):
                if all(is_whole(Path(source)) for source in job.sources):
                    return job
            going_on = [g for g in population if is_unconditional(self._state, stage, g)]
        return None

    @property
    def _is_shared(self) -> bool:
        """Whether several workers train at the same time."""
        return self._context.executor.settings.workers > 1

    def _affordable(self) -> list[Job]:
        return self._context.allowance.affordable(self._jobs, self._history.trained_steps)

    def _conclude(self) -> list[DeriveJob]:
        """What is to be derived next wherever the last stage is decided; where nothing is, record
        the parents of the next generation: the best of the old population, the newborn, and those
        derived. A process may have ended between the two."""
        history = self._history
        for generation in self._unconcluded():
            jobs = self._derivation.jobs(generation)
            if jobs:
                return jobs
            old = history.populations.get(generation - 1, ())
            made = history.generations[generation], history.derived.get(generation, ())
            new = [genome.id for genomes in made for genome in genomes]
            self._population.survive(generation, (*old, *new))
        return []

    def _unconcluded(self) -> list[int]:
        """The generations whose last stage is decided, and whose survivors are not chosen."""
        history, last = self._history, self._state.last_stage
        decided = [g for g in history.generations if (g, last) in history.decisions]
        return [generation for generation in decided if generation not in history.populations]
