"""Work beside the search: whatever of it is due at a moment is done at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from coralx.engine.context import RunContext
from coralx.execution.executor import AnyJob, JobOutcome, genome_and_stage
from coralx.records.events import FrontMeasured, GenomeFailed, TrainedBeside
from coralx.records.jobs import DeriveJob, Job, JobFailed, MeasureJob
from coralx.records.results import Derived, Measurement, StageResult
from coralx.records.subjects import subject_of
from coralx.storage.checkpoints import is_whole
from coralx.storage.history import History

IsTrained = Callable[[Job | DeriveJob], bool]
Due = Callable[[IsTrained], Iterable[AnyJob]]
"""The jobs that could be done now, most urgent first, those under way among them."""


class Beside:
    """Gives out what is `due`, and records what comes of it. No job is given out twice: what goes
    wrong costs nothing but itself."""

    def __init__(self, context: RunContext, due: Due) -> None:
        self._context = context
        self._due = due
        self._given_out: set[tuple[str | None, str]] = set()
        self._under_way: dict[str | None, AnyJob] = {}
        self._trained: set[tuple[str, str]] = set()
        """What is known to be whole."""

    @property
    def under_way(self) -> list[AnyJob]:
        """What has been given out and has brought no outcome yet."""
        return list(self._under_way.values())

    def next(self) -> AnyJob | None:
        """The most urgent job that has not been given out; None where there is none now."""
        for job in self._due(self._is_trained):
            key = genome_and_stage(job)
            if key not in self._given_out:
                self._given_out.add(key)
                self._under_way[key[0]] = job
                return job
        return None

    def jobs(self) -> Iterator[AnyJob | None]:
        """All there is; None while what is left waits for an outcome."""
        while (job := self.next()) is not None or self._under_way:
            yield job

    def record(self, outcome: JobOutcome) -> bool:
        """Record what came of a job; False where it is none of these."""
        name = outcome.genome.id if isinstance(outcome, Derived) else outcome.genome
        job = self._under_way.pop(name, None)
        if job is None:
            return False
        ledger = self._context.ledger
        match outcome:
            case StageResult() | Derived():
                result = outcome.result if isinstance(outcome, Derived) else outcome
                self._trained.add((result.genome, result.stage))
                ledger.append(TrainedBeside(result))
            case Measurement():
                ledger.append(FrontMeasured(outcome))
            case JobFailed(genome=str(genome), stage=stage, reason=reason):
                generation = 0 if isinstance(job, MeasureJob) else job.genome.generation
                ledger.append(GenomeFailed(generation, genome, stage, reason))
            case JobFailed():
                pass  # the untuned base is measured again with the front
        return True

    def _is_trained(self, job: Job | DeriveJob) -> bool:
        """As `is_trained`, but what has been seen whole is not read again."""
        key = job.genome.id, job.stage
        if key not in self._trained and is_trained(self._context.history, job):
            self._trained.add(key)
        return key in self._trained


def train_beside(jobs: Sequence[Job | DeriveJob], context: RunContext) -> None:
    """Record what becomes of those jobs that have not been done before, whatever the deadline."""
    work = Beside(context, lambda is_trained: [job for job in jobs if not is_trained(job)])
    for outcome in context.executor.run(work.jobs()):
        work.record(outcome)


def is_trained(history: History, job: Job | DeriveJob) -> bool:
    """Whether the job has its result, and the checkpoint that came of it is whole."""
    result = history.trained_beside.get((subject_of(job.genome.id), job.stage))
    # What diverged has left no checkpoint, and a plan without a run folder asks for none.
    if result is None or result.checkpoint is None or job.checkpoint is None:
        return result is not None
    return is_whole(Path(job.checkpoint))
