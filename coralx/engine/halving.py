"""Synchronous promotion: a round is a stage of a generation, decided once all have trained it
(successive halving, Jamieson and Talwalkar 2016), or after the last one a round of derivations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from coralx.engine.context import RunContext
from coralx.engine.convergence import has_stalled
from coralx.engine.derivation import DerivationPhase
from coralx.engine.population import Population
from coralx.engine.stage_decisions import decide_stage
from coralx.engine.state import RunState
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob, Job
from coralx.records.verdicts import Promote
from coralx.schedule.stages import Stage


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
        self._derivations: list[DeriveJob] = []
        """The round, where it is one of derivations."""
        # Else its stage, who entered that, and what is left to train of it.
        self._generation = 0
        self._stage = self._state.stages[0]
        self._entered: tuple[Genome, ...] = ()
        self._jobs: list[Job] = []
        self._outcomes = 0

    def begin(self) -> list[Path] | None:
        """Take up what is to be derived of a generation that has trained, or the next stage, with
        every genome that may enter it. None also where the search space holds no further genome."""
        self._outcomes = 0
        self._derivations = self._conclude()
        if self._derivations:
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
        self._jobs = self._pending()
        return [Path(source) for job in self._affordable() for source in job.sources]

    def jobs(self) -> Iterator[Job | DeriveJob]:
        """All at once: what they are does not depend on one another's outcomes."""
        yield from self._derivations or self._affordable()

    def done(self, genome: str) -> bool:
        """Nothing follows before the stage is decided."""
        self._outcomes += 1
        return False

    def end(self) -> bool:
        """Decide the stage, if all its jobs brought an outcome; after the last stage, once nothing
        is left to derive, who survives."""
        if self._outcomes < len(self._derivations or self._jobs):
            return False
        if not self._derivations:
            decision = decide_stage(self._state, self._stage, self._generation, self._entered)
            self._context.ledger.append(decision)
        self._conclude()
        return True

    @property
    def under_way(self) -> tuple[Job, ...]:
        """None: between rounds no worker has a job."""
        return ()

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

    def _pending(self) -> list[Job]:
        """A job for each genome that has no result for the stage yet."""
        stage = self._stage
        untrained = [g for g in self._entered if not self._history.is_done(g.id, stage.name)]
        fitting = [g for g in untrained if not self._population.is_too_large(g, stage)]
        return [self._context.jobs.train(genome, stage) for genome in fitting]

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
