"""Where jobs run: the Protocol of all executors, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from coralx.config.schema import Config
from coralx.errors import NotDerivable, OutOfMemory
from coralx.records.events import AttemptFailed, WorkerStarted, WorkerStopped
from coralx.records.jobs import DeriveJob, Job, JobFailed, MeasureJob
from coralx.records.results import Derived, Measurement, Progress, StageResult
from coralx.records.run_facts import Facts, Settings

AnyJob = Job | MeasureJob | DeriveJob
JobOutcome = StageResult | Measurement | Derived | JobFailed
StatusUpdate = Progress | WorkerStarted | WorkerStopped | AttemptFailed | str
"""What a worker says between outcomes; a str is a line about what it is doing."""

Listener = Callable[[StatusUpdate], None]


class Executor(Protocol):
    """Runs jobs on workers that have loaded the base model once."""

    def start(self, config: Config, settings: Settings | None, listener: Listener) -> Facts:
        """Start a first worker and learn what only it can know.

        `settings` are those of a run that is resumed; None lets the executor choose them.
        Raises ConfigError where model or data do not fit the config, SetupError where a package
        is missing.
        """
        ...

    @property
    def settings(self) -> Settings:
        """What was chosen at the start."""
        ...

    def run(
        self, jobs: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        """Outcomes of all `jobs` in the order of their completion.

        A job is taken when a worker is free for it; None means that there is none until a further
        outcome has been seen.
        At the `deadline` (of the monotonic clock) it ends: what is not done by then is dropped (in
        this very process a job under way is finished first).
        """
        ...

    def close(self) -> None:
        """Stop the workers. Safe to call twice."""
        ...


def reason_of(kind: str, message: str, problems: Sequence[str] = ()) -> str:
    """Why a job failed whose worker met an exception of this kind, in words; `problems` are those
    of a config."""
    if problems:
        return "; ".join(problems)
    if kind in (OutOfMemory.__name__, NotDerivable.__name__):
        return message
    return f"{kind}: {message}" if message else kind


def genome_and_stage(job: AnyJob) -> tuple[str | None, str]:
    """What a job is about: the genome (None: the untuned base) and the stage."""
    if isinstance(job, MeasureJob):
        return (job.genome.id if job.genome else None), "test"
    return job.genome.id, job.stage
