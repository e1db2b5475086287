"""How workers are stopped: jobs under way are paused, idle workers say goodbye."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from coralx.execution.executor import JobOutcome, Listener
from coralx.execution.messages import (
    DerivingDone,
    Failed,
    Goodbye,
    JobPaused,
    MeasuringDone,
    Pause,
    TrainingDone,
)
from coralx.execution.packs import left_of
from coralx.execution.process import POLL_SECONDS, WorkerProcess, replies
from coralx.records.events import WorkerStopped
from coralx.system.signals import Interruption

GOODBYE_SECONDS = 5.0
PAUSE_SECONDS, HASTY_GOODBYE_SECONDS = 2.5, 1.0
"""Together within the five seconds that an interruption may take."""

LATE_SECONDS = 60.0
"""At a deadline there is time for a slow step to end."""


def pause_jobs(
    workers: Iterable[WorkerProcess],
    interruption: Interruption,
    end: Callable[[WorkerProcess], None],
) -> Iterator[JobOutcome]:
    """Have every job under way keep what it has trained so far, so that a resume continues it;
    outcomes that come meanwhile count. Workers that fail, or take too long, are ended by `end`."""
    busy = [worker for worker in workers if worker.job is not None]
    for worker in busy:
        worker.send(Pause())
    in_haste = interruption.is_wanted
    until = time.monotonic() + (PAUSE_SECONDS if in_haste else LATE_SECONDS)
    while busy and time.monotonic() < until:
        if interruption.is_wanted and not in_haste:  # it came while a deadline was waited for
            break
        for worker, reply in replies(busy, min(until - time.monotonic(), POLL_SECONDS)):
            match reply:
                case (
                    TrainingDone(result=outcome)
                    | MeasuringDone(measurement=outcome)
                    | DerivingDone(derived=outcome)
                ):
                    worker.job = left_of(worker.job, outcome)
                    yield outcome
                case JobPaused():
                    worker.job = None
                case Failed() | None:
                    worker.job = None
                    end(worker)
                case _:
                    pass
        busy = [worker for worker in busy if worker.job is not None]
    for worker in busy:
        end(worker)


def dismiss(workers: Iterable[WorkerProcess], interruption: Interruption, listen: Listener) -> None:
    """Ask idle workers to stop, and wait a while for their last reply."""
    waiting = list(workers)
    for worker in waiting:
        worker.dismiss()
    seconds = HASTY_GOODBYE_SECONDS if interruption.is_wanted else GOODBYE_SECONDS
    until = time.monotonic() + seconds
    while waiting and time.monotonic() < until:
        for worker, reply in replies(waiting, until - time.monotonic()):
            if isinstance(reply, Goodbye):
                listen(WorkerStopped(worker.number, reply.base_loads, reply.jobs))
            if reply is None or isinstance(reply, Goodbye):
                waiting.remove(worker)
