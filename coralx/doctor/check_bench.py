"""The workers of `--gpu-check`: each trains a few genomes within a time limit, and is ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from coralx.backends.choice import require_available, with_backend_defaults
from coralx.config import Config
from coralx.errors import CoralXError, WorkerError
from coralx.execution.executor import Listener, StatusUpdate
from coralx.execution.local import LocalExecutor
from coralx.records.events import WorkerStarted
from coralx.records.jobs import Job, JobFailed
from coralx.records.results import StageResult
from coralx.records.run_facts import REVISION, Facts, Settings
from coralx.system.containers import cores
from coralx.system.signals import Interruption

WARM_UP_STEPS = 2


class OutOfTime(Exception):
    """The time that a part of the check may take is over."""


@dataclass(frozen=True)
class Trial:
    """What one worker, or several of a kind at a time, trained."""

    facts: Facts
    outcomes: tuple[StageResult | JobFailed, ...]
    """In the order of their completion; fewer than jobs where time ran out."""

    def each(self, genome: str, jobs: int = 1) -> list[StageResult]:
        """What came of the `jobs` of a genome. Raises WorkerError where one could not be trained,
        OutOfTime where one was not."""
        found = [outcome for outcome in self.outcomes if outcome.genome == genome]
        for outcome in found:
            if isinstance(outcome, JobFailed):
                raise WorkerError(outcome.reason)
            if outcome.divergence is not None:
                raise WorkerError(f"{outcome.divergence.reason}, at step {outcome.divergence.step}")
        if len(found) < jobs:
            raise OutOfTime
        return [outcome for outcome in found if isinstance(outcome, StageResult)]

    def of(self, genome: str) -> StageResult:
        """What came of a genome's job; raises as `each`."""
        return self.each(genome)[0]


JobsOf = Callable[[Facts], Sequence[Job]]
"""The jobs of a trial, by what its worker says of the base."""


@dataclass
class Bench:
    """Trains what the parts of a check ask for, each trial once."""

    listener: Listener
    until: float
    """When the check ends, by the monotonic clock."""
    limit: float = 0.0
    """When its present part does."""
    done: dict[str, Trial | CoralXError | OutOfTime] = field(default_factory=dict)
    """By name, what a trial brought, or how it ended."""
    _precisions: dict[str, str] = field(default_factory=dict)
    """By task: what its first worker chose, which those after it reuse."""

    def allow(self, seconds: float) -> None:
        """Give the part that begins now so many seconds, of those that are left."""
        self.limit = min(time.monotonic() + seconds, self.until)

    def trial(
        self, name: str, config: Config, backend: str, jobs: JobsOf, workers: int = 1
    ) -> Trial:
        """The trial of this name, or how it ended when it was tried first. Of several workers all
        have loaded the base and trained a little before the jobs begin, one for each.

        Raises CoralXError where the backend cannot train the config, OutOfTime at the limit.
        """
        if name not in self.done:
            try:
                self.done[name] = self._trained(config, backend, jobs, workers)
            except (CoralXError, OutOfTime) as error:
                self.done[name] = error
        found = self.done[name]
        if isinstance(found, Exception):
            raise found
        return found

    def _trained(self, config: Config, backend: str, jobs: JobsOf, workers: int) -> Trial:
        require_available(config, backend)
        runtime = config.runtime.model_copy(update={"backend": backend, "workers": workers})
        config = with_backend_defaults(config.model_copy(update={"runtime": runtime}), backend)
        outcomes = list[StageResult | JobFailed]()
        with _ending_at(self.limit) as interruption:
            started = _Counting(self.listener, interruption)
            executor = LocalExecutor(backend, interruption)
            try:
                facts = executor.start(config, self._settings(config, workers), started)
                self._precisions[config.model.task] = facts.precision
                chosen = jobs(facts)
                if workers > 1:
                    for _ in executor.run(_until(started, workers, chosen[0])):
                        pass
                for outcome in executor.run(chosen):
                    if isinstance(outcome, StageResult | JobFailed):
                        outcomes.append(outcome)
            except KeyboardInterrupt:
                if not interruption.is_wanted:  # it was the user's
                    raise
                if not outcomes:
                    raise OutOfTime from None
            finally:
                executor.close()
        return Trial(facts, tuple(outcomes))

    def _settings(self, config: Config, workers: int) -> Settings | None:
        """As for a run that goes on, so that no worker but the first measures what it found; None
        for that one."""
        precision = self._precisions.get(config.model.task)
        if precision is None:
            return None
        threads = config.runtime.threads_per_worker
        share = max(1, cores() // workers) if threads == "auto" else threads
        return Settings(workers, share, precision, REVISION)


class _Counting:
    """Passes on what workers report until the time is over, and counts those that have started."""

    def __init__(self, listener: Listener, interruption: Interruption) -> None:
        self._listener = listener
        self._interruption = interruption
        self.workers = 0

    def __call__(self, signal: StatusUpdate) -> None:
        self.workers += isinstance(signal, WorkerStarted)
        if (
            not self._interruption.is_wanted
        ):  # what is said to a user who interrupts is out of place
            self._listener(signal)


def _until(started: _Counting, workers: int, job: Job) -> Iterator[Job]:
    """Short jobs until so many workers have started, and one more for each."""
    number = 0
    while started.workers < workers or number < 2 * workers:
        genome = replace(job.genome, id=f"warm-up-{number}")
        yield replace(job, genome=genome, last_step=min(job.last_step, WARM_UP_STEPS))
        number += 1


@contextmanager
def _ending_at(limit: float) -> Iterator[Interruption]:
    """An interruption that is wanted from `limit` on. Raises OutOfTime where that has passed."""
    seconds = limit - time.monotonic()
    if seconds <= 0:
        raise OutOfTime
    interruption = Interruption()
    timer = threading.Timer(seconds, setattr, (interruption, "is_wanted", True))
    timer.daemon = True
    timer.start()
    try:
        yield interruption
    finally:
        timer.cancel()
