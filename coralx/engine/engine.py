"""The one loop: the scheduler says which jobs are next, and every event goes into the ledger.

Each step first asks the history whether it was taken before; so a resumed run replays recorded
decisions and goes on where the ledger ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from coralx.config import Config
from coralx.engine.baselines import (
    baseline_jobs,
    idle_jobs,
    missing_recipes,
    restore_baselines,
)
from coralx.engine.beside import Beside, IsTrained
from coralx.engine.budget import Allowance
from coralx.engine.checkpoint_retention import Restorer, needed_checkpoints
from coralx.engine.context import RunContext
from coralx.engine.derivation import DerivationPhase
from coralx.engine.final_evaluation import measure
from coralx.engine.jobs import JobMaker
from coralx.engine.population import Population
from coralx.engine.scheduler import scheduler_of
from coralx.engine.significance import compare
from coralx.engine.state import RunState
from coralx.engine.verification import verification_jobs
from coralx.execution.executor import AnyJob, Executor, JobOutcome
from coralx.records.events import (
    BudgetSpent,
    DerivationFailed,
    GenomeDerived,
    GenomeFailed,
    StageCompleted,
)
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob, Job, JobFailed, MeasureJob
from coralx.records.results import Derived, StageResult
from coralx.records.run_facts import Facts
from coralx.records.subjects import Searched
from coralx.schedule.stages import Stage
from coralx.storage.checkpoints import drop_all_partials, drop_partials, is_whole, prune
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger


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
        self.history = History(ledger)
        ledger.subscribe(self.history.apply)
        self.state = RunState(config, self.history)
        jobs = JobMaker(self.state, facts, layout)
        allowance = allowance or Allowance(config.budget)
        self.context = RunContext(self.state, jobs, executor, ledger, layout, allowance)
        self._scheduler = scheduler_of(
            self.context,
            Population(self.state, facts, ledger, given),
            DerivationPhase(self.state, jobs, facts),
        )
        self._restorer = Restorer(self.context, layout) if layout else None
        self._idle_work = Beside(self.context, partial(idle_jobs, self.context))
        self._under_way: dict[str, Job | DeriveJob] = {}
        """By genome: the search's jobs that have brought no outcome yet."""
        self._is_in_round = False

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The schedule, in order."""
        return self.state.stages

    def run(self) -> None:
        """Search to the end (or the budget's), then measure baselines and front."""
        self.search()
        self.finish()

    def finish(self) -> None:
        """Measure the front; train and measure what it is to be compared with; compare."""
        if not self._require_front():
            self._record_budget_spent()
            return
        restore_baselines(self.context)
        measure(self.context)
        if self.history.budget_spent is None:
            self._complete_comparison()
            measure(self.context, retrained=True)
        compare(self.context)
        self._prune()  # a process may have ended before it did
        layout = self.context.layout
        if self.is_over and layout is not None:
            drop_all_partials(layout)

    def _complete_comparison(self) -> None:
        """Train what the front is held against, and its heirs from scratch, as far as the time
        allows. What goes wrong with it is recorded, and costs the search nothing."""
        context = self.context

        def due(is_trained: IsTrained) -> Iterator[AnyJob]:
            yield from baseline_jobs(context, missing_recipes(context.state), is_trained)
            yield from verification_jobs(context, is_trained)

        work = Beside(context, due)
        for outcome in context.executor.run(work.jobs(), context.allowance.deadline):
            work.record(outcome)

    def _require_front(self) -> bool:
        """See to it that the front, and the recipes it is held against, can be measured and handed
        over; False where the budget does not afford that."""
        layout = self.context.layout
        if layout is None:
            return True
        names = set(self.front())
        recipes = self.state.finishers().values()
        names |= {recipe.genome for recipe in recipes if isinstance(recipe, Searched)}
        return self._require([layout.checkpoint(name, self.state.last_stage) for name in names])

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train and all that is to be measured is."""
        is_measured = all(self.history.measured(genome) for genome in self.front())
        return not self.has_more and is_measured and not self.history.unmeasured

    @property
    def has_more(self) -> bool:
        """Whether a later process could train further stages: the budget may grow."""
        return self.history.budget_spent is not None or self._scheduler.has_more

    def front(self) -> tuple[str, ...]:
        """Non-dominated genomes among those that finished the last stage, best skill first."""
        return self.state.front()

    def search(self) -> tuple[str, ...]:
        """Train until nothing is left to train or the budget is spent; returns the front."""
        while self._work(to_the_end=True):
            pass
        return self.front()

    def train_round(self) -> bool:
        """Train what is due next, and decide: one stage, or where genomes are promoted one by one
        all that is left; or derive a round of adapters of what was trained. False where nothing is
        left, or the budget is spent."""
        return self._work(to_the_end=False)

    def _work(self, *, to_the_end: bool) -> bool:
        """One round, or `to_the_end` round after round for as long as no checkpoint has to be made
        again first: that is done while no worker is busy. False as `train_round` says."""
        sources = self._begin_round()
        if sources is None:
            return False
        if self._require(sources):
            executor, deadline = self.context.executor, self.context.allowance.deadline
            for outcome in executor.run(self._jobs(to_the_end=to_the_end), deadline):
                self._take_in(outcome)
        self._under_way.clear()  # at a deadline workers were stopped with what they had
        if self._is_in_round and not self._end_round():
            self._record_budget_spent()
            return False
        return True

    def _jobs(self, *, to_the_end: bool) -> Iterator[AnyJob | None]:
        """The jobs as they are taken. To the end rounds follow one another without a break, and
        whoever would have to wait works beside the search."""
        while True:
            for job in self._scheduler.jobs(ahead=to_the_end):
                if job is not None:
                    self._under_way[job.genome.id] = job
                yield self._idle_work.next() if job is None and to_the_end else job
            if not to_the_end or not self._end_round():
                return
            sources = self._begin_round()
            if sources is None or not all(map(is_whole, sources)):
                self._is_in_round = False
                break
        while self._under_way or self._idle_work.under_way:
            yield self._idle_work.next()

    def _begin_round(self) -> list[Path] | None:
        sources = self._scheduler.begin(self._under_way)
        self._is_in_round = sources is not None
        return sources

    def _end_round(self) -> bool:
        """Whether all its jobs have brought an outcome, and what follows is decided."""
        if not self._scheduler.end():
            return False
        self._is_in_round = False
        self._prune()
        return True

    def _take_in(self, outcome: JobOutcome) -> None:
        if self._idle_work.record(outcome):
            return
        genome = self._record(outcome)
        if self._scheduler.done(genome):
            self._prune()

    def derive(self) -> None:
        """Derive what is left to be derived of what was trained last, as far as the time allows."""
        while self._scheduler.is_deriving and self.train_round():
            pass

    def _record(self, outcome: JobOutcome) -> str:
        """Record what came of a job; returns the id of its genome."""
        ledger = self.context.ledger
        match outcome:
            case StageResult(genome=name):
                genome = self._under_way.pop(name).genome
                ledger.append(StageCompleted(genome.generation, outcome))
            case Derived(genome=genome, result=result):
                self._under_way.pop(genome.id)
                ledger.append(GenomeDerived(genome.generation, genome, result))
            case JobFailed(genome=str(name), stage=stage, reason=reason):
                genome = self._under_way.pop(name).genome
                if genome.derived is None:
                    ledger.append(GenomeFailed(genome.generation, name, stage, reason))
                else:
                    ledger.append(DerivationFailed(genome.generation, genome, reason))
            case _:
                raise TypeError(f"a job of the search brought {outcome!r}")
        return genome.id

    def _record_budget_spent(self) -> None:
        self.context.ledger.append(BudgetSpent(self.context.allowance.binding))

    def _require(self, checkpoints: Iterable[Path]) -> bool:
        """See to it that these are whole; False where the budget does not afford that."""
        return self._restorer is None or self._restorer.require(checkpoints)

    def _prune(self) -> None:
        """Drop the checkpoints that nothing can need any more."""
        layout = self.context.layout
        if layout is None:
            return
        drop_partials(layout, self.history.is_done)
        if self.config.runtime.keep_checkpoints == "all":
            return
        is_exhausted = not self._scheduler.has_more
        beside = [job for job in self._idle_work.under_way if not isinstance(job, MeasureJob)]
        at_work = [*self._under_way.values(), *beside]
        needed = needed_checkpoints(self.state, at_work, is_exhausted=is_exhausted)
        prune(layout, needed, {job.genome.id for job in at_work})
