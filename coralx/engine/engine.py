"""The one loop: generations of genomes through stages, every event into the ledger.

Each step first asks the history whether it was taken before; so a resumed run replays recorded
decisions and goes on where the ledger ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from coralx.backends.memory_estimate import too_large
from coralx.config import Config
from coralx.engine.asha import AsynchronousSearch
from coralx.engine.baselines import restore_baselines, train_beside
from coralx.engine.budget import Allowance
from coralx.engine.checkpoint_retention import Restorer, needed_checkpoints
from coralx.engine.context import RunContext
from coralx.engine.convergence import has_stalled
from coralx.engine.final_evaluation import measure
from coralx.engine.jobs import JobMaker
from coralx.engine.population import Population
from coralx.engine.significance import compare
from coralx.engine.stage_decisions import decide_stage
from coralx.engine.state import RunState
from coralx.execution.executor import Executor, Outcome
from coralx.records.events import BudgetSpent, GenomeFailed, StageCompleted
from coralx.records.genomes import Genome
from coralx.records.jobs import Job, JobFailed
from coralx.records.results import StageResult
from coralx.records.run_facts import Facts
from coralx.records.verdicts import Promote
from coralx.schedule.stages import Stage
from coralx.storage.checkpoints import drop_all_partials, drop_partials, prune
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from coralx.system.files import verify_folder


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
        self.is_exhausted = False
        self.history = History(ledger)
        ledger.subscribe(self.history.apply)
        self.state = RunState(config, self.history)
        self.is_asynchronous = self.state.succession.overlaps
        self.jobs = JobMaker(self.state, facts, layout)
        self.population = Population(self.state, facts, ledger, given)
        self.footprint = facts.footprint
        self.context = RunContext(self.state, self.jobs, executor, ledger, layout, self.allowance)
        self._restorer = Restorer(self.context, layout) if layout else None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The schedule, in order."""
        return self.state.stages

    def run(self) -> None:
        """Search to the end (or the budget's), then measure baselines and front."""
        self.search()
        self.finish()

    def finish(self) -> None:
        """Measure what the search brought; train and measure what is wanted beside it; compare."""
        self._catch_up()
        if not self._require_front():
            self.ledger.append(BudgetSpent(self.allowance.binding))
            return
        restore_baselines(self.context)
        measure(self.context)
        if self.history.budget_spent is None:
            train_beside(self.context)
            measure(self.context, beside=True)
        compare(self.context)
        self._prune()  # a process may have ended before it did
        if self.is_over and self.layout is not None:
            drop_all_partials(self.layout)

    def _require_front(self) -> bool:
        """See to it that the front, and the default recipe, can be measured and handed over; False
        where the budget does not afford that."""
        if self._restorer is None or self.layout is None:
            return True
        wanted = {*self.front(), self.state.default_finisher()} & self.history.genomes.keys()
        last = self.state.last_stage
        paths = [self.layout.checkpoint(str(name), last) for name in wanted]
        return self._restorer.require(paths)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train and all that is to be measured is."""
        is_measured = set(self.front()) <= set(self.history.measurements)
        return not self.has_more and is_measured and not self.history.unmeasured

    @property
    def has_more(self) -> bool:
        """Whether a later process could train further stages: the budget may grow."""
        if self.history.budget_spent is not None:
            return True
        if self.is_exhausted:
            return False
        return self.is_asynchronous or next_stage(self.state) is not None

    def front(self) -> tuple[str, ...]:
        """Non-dominated genomes among those that finished the last stage, best skill first."""
        return self.state.front()

    def search(self) -> tuple[str, ...]:
        """Train until nothing is left to train or the budget is spent; returns the front."""
        if self.is_asynchronous:
            self._search_asynchronously()
            return self.front()
        while (following := self.following()) is not None:
            if not self.train_stage(*following):
                break
        return self.front()

    def following(self) -> tuple[int, Stage] | None:
        """The generation and stage that are to be trained next; None where none is."""
        self._catch_up()
        return next_stage(self.state)

    def _catch_up(self) -> None:
        """Record the survivors of every generation whose last stage is decided: a process may have
        ended between the two."""
        for generation in [] if self.is_asynchronous else list(self.history.generations):
            if (generation, self.state.last_stage) in self.history.decisions:
                self._survive(generation)

    def train_stage(self, generation: int, stage: Stage) -> bool:
        """Take every genome that may enter through one stage, and decide who goes on.

        False where that cannot be: the space holds no further genome, or the budget is spent.
        """
        population = self.population.of(generation)
        if not population:
            self.is_exhausted = True
            return False
        stage = self.state.stages_in(generation)[stage.place]  # its budgets are known only now
        entered = self._entered(population, generation, stage)
        if not self._train(entered, stage):
            return False
        event = decide_stage(self.state, stage, generation, entered)
        self.ledger.append(event)
        self._catch_up()
        self._prune()
        return True

    def _entered(
        self, population: Sequence[Genome], generation: int, stage: Stage
    ) -> tuple[Genome, ...]:
        """The genomes that the previous stage promoted, and those that begin with this one."""
        promoted: set[str] = set()
        if stage.place:
            previous = self.history.decisions[generation, self.stages[stage.place - 1].name]
            promoted = {v.genome for v in previous.verdicts if isinstance(v, Promote)}
        return tuple(g for g in population if g.enters == stage.place or g.id in promoted)

    def _survive(self, generation: int) -> None:
        """The parents of the next generation: the best of the old population and the newborn."""
        if generation not in self.history.populations:
            old = self.history.populations.get(generation - 1, ())
            newborn = [genome.id for genome in self.history.generations[generation]]
            self.population.survive(generation, (*old, *newborn))

    # -- training --------------------------------------------------------------------------------

    def _train(self, genomes: Sequence[Genome], stage: Stage) -> bool:
        """Train every genome that has no result for the stage yet; False if the budget ends it."""
        pending = [g for g in genomes if not self.history.is_done(g.id, stage.name)]
        pending = [genome for genome in pending if not self._is_too_large(genome, stage)]
        wanted = [self.jobs.train(genome, stage) for genome in pending]
        jobs = self.allowance.affordable(wanted, self.history.trained_steps)
        if self._restorer is not None:  # what it trains again counts, too
            sources = (Path(source) for job in jobs for source in job.sources)
            is_whole = self._restorer.require(sources)
            jobs = self.allowance.affordable(jobs, self.history.trained_steps) if is_whole else []
        done = 0
        for outcome in self.executor.run(jobs, self.allowance.deadline):
            done += 1
            self._record(outcome)
        if done < len(wanted):
            self.ledger.append(BudgetSpent(self.allowance.binding))
        return done == len(wanted)

    def _search_asynchronously(self) -> None:
        search = AsynchronousSearch(
            self.state,
            self.ledger,
            self.jobs,
            self.population,
            self._is_too_large,
        )

        def affords(job: Job, under_way: int) -> bool:
            return self.allowance.affords(job, self.history.trained_steps + under_way)

        def checked() -> Iterator[Job | None]:
            for job in search.jobs(affords):
                for source in job.sources if job else ():
                    verify_folder(Path(source))  # while workers are busy, none is made again
                yield job

        if not self._require_living():
            self.ledger.append(BudgetSpent(self.allowance.binding))
            return
        for outcome in self.executor.run(checked(), self.allowance.deadline):
            self._record(outcome)
            search.done(str(outcome.genome))
            self._prune(search.under_way)
        self.is_exhausted = search.is_closed
        if not search.is_closed:
            self.ledger.append(BudgetSpent(self.allowance.binding))
        self._prune()

    def _record(self, outcome: Outcome) -> None:
        generation = self.history.genomes[str(outcome.genome)].generation
        match outcome:
            case StageResult():
                self.ledger.append(StageCompleted(generation, outcome))
            case JobFailed(genome=str(genome), stage=stage, reason=reason):
                self.ledger.append(GenomeFailed(generation, genome, stage, reason))
            case _:
                raise TypeError(f"a training job brought {outcome!r}")

    def _require_living(self) -> bool:
        """See to it that the last checkpoints are whole of all that may go on or be a parent; False
        where the budget does not afford that."""
        if self._restorer is None or self.layout is None:
            return True
        needed = needed_checkpoints(self.state)
        known = [(name, stage) for name, stage in needed if name in self.history.genomes]
        paths = [self.layout.checkpoint(*found) for found in known]
        return self._restorer.require(paths)

    def _is_too_large(self, genome: Genome, stage: Stage) -> bool:
        """Fail a genome that no worker could hold, rather than have it fail on every attempt."""
        reason = too_large(self.footprint, genome.genes)
        if reason is not None:
            self.ledger.append(GenomeFailed(genome.generation, genome.id, stage.name, reason))
        return reason is not None

    def _prune(self, under_way: Sequence[Job] = ()) -> None:
        """Drop the checkpoints that nothing can need any more."""
        if self.layout is None:
            return
        drop_partials(self.layout, self.history.is_done)
        if self.config.runtime.keep_checkpoints == "all":
            return
        needed = needed_checkpoints(self.state, under_way, is_exhausted=self.is_exhausted)
        prune(self.layout, needed, {job.genome.id for job in under_way})
