"""Workers on this machine, one process each: a GPU has one, a CPU's cores are shared out."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from coralx.config.schema import Config
from coralx.errors import ConfigError, OutOfMemory, WorkerError
from coralx.execution.executor import Listener, Outcome, Task, reason_of, task_name
from coralx.execution.messages import (
    Failed,
    Goodbye,
    Hello,
    Left,
    Measure,
    Measured,
    Pause,
    Prepare,
    Ready,
    Reply,
    Step,
    Train,
    Trained,
)
from coralx.execution.placement import late_pins, pins, share_out
from coralx.execution.process import (
    POLL_SECONDS,
    LostWorker,
    Wanted,
    WorkerProcess,
    await_reply,
    environment,
    replies,
    reported,
)
from coralx.records.events import AttemptFailed, WorkerStarted, WorkerStopped
from coralx.records.jobs import JobFailed, MeasureJob
from coralx.records.run_facts import Facts, Settings
from coralx.system.containers import cores
from coralx.system.gpus import VARIABLE
from coralx.system.signals import Interruption

ATTEMPTS = 3
"""Fewer where a worker tells of the same error twice: it would do so again."""

LOADING = 6
"""So many times longer may a worker be silent while it loads the base: a hub may be slow."""

GOODBYE_SECONDS = 5.0
PAUSE_SECONDS, HASTY_GOODBYE_SECONDS = 2.5, 1.0
"""Together within the five seconds that an interruption may take."""

LATE_SECONDS = 60.0
"""At a deadline there is time for a slow step to end."""


class LocalExecutor:
    """The first worker measures what the others then reuse; they join as they become ready."""

    def __init__(self, backend: str, interruption: Interruption | None = None) -> None:
        self._backend = backend
        self._interruption = interruption or Interruption()
        self._workers: list[WorkerProcess] = []
        self._waiting: deque[Task] = deque()
        self._attempts: dict[tuple[str | None, str], int] = {}
        self._told: dict[tuple[str | None, str], str] = {}
        self._spawned = 0
        self._lost_starts = 0
        self._given_up = 0
        self._pins: tuple[str, ...] = ()
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            raise RuntimeError("the executor has not been started")
        return self._settings

    # -- start -----------------------------------------------------------------------------------

    def start(self, config: Config, settings: Settings | None, listener: Listener) -> Facts:
        self._config, self._listener = config, listener
        listener("starting a worker")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._start(config, settings)
            except LostWorker as error:
                if attempt == ATTEMPTS:
                    raise
                listener(f"{error.message}; starting another")
                self._end(self._workers[0])
        raise RuntimeError("the loop above ends by itself")

    def _start(self, config: Config, settings: Settings | None) -> Facts:
        """Start the first worker. Raises LostWorker where it dies or hangs before it is ready."""
        threads = settings.threads_per_worker if settings else cores()
        self._pins = pins(config, self._backend)
        first = self._spawn(threads)
        hello = self._await(first, Hello)
        if not hello.device.startswith("cuda") or not self._pins:
            self._pins = late_pins(config, hello.device, hello.device_count)
        plan = settings or share_out(config, hello.device, len(self._pins) or hello.device_count)
        first.send(self._prepare(plan, plan.precision or None))
        ready = self._await(first, Ready)
        self._settings = replace(plan, precision=ready.facts.precision)
        self._welcome(first, ready)
        if not self._pins:
            return ready.facts
        return replace(ready.facts, device_count=len(self._pins))  # a worker sees but its own

    def _await(self, worker: WorkerProcess, wanted: type[Wanted]) -> Wanted:
        patience = self._patience(worker)
        return await_reply(worker, wanted, self._listener, self._interruption, patience)

    def _prepare(self, settings: Settings, precision: str | None) -> Prepare:
        values, threads = self._config.model_dump(mode="json"), settings.threads_per_worker
        return Prepare(values, precision, threads, settings.revision)

    def _spawn(self, threads: int) -> WorkerProcess:
        taken = {worker.slot for worker in self._workers}
        slot = next(slot for slot in itertools.count() if slot not in taken)
        extra = environment(self._config)
        if self._pins:
            extra[VARIABLE] = self._pins[slot % len(self._pins)]
        worker = WorkerProcess(self._spawned, self._backend, threads, slot, extra)
        self._spawned += 1
        self._workers.append(worker)
        return worker

    def _welcome(self, worker: WorkerProcess, ready: Ready) -> None:
        worker.ready = True
        self._listener(
            WorkerStarted(
                worker.number, worker.pid, ready.facts.device, ready.base_loads, ready.load_seconds
            )
        )

    # -- work ------------------------------------------------------------------------------------

    def run(self, tasks: Iterable[Task | None], deadline: float | None = None) -> Iterator[Outcome]:
        source = iter(tasks)
        open_tasks = self._take(source, 0)
        while open_tasks:
            left = math.inf if deadline is None else deadline - time.monotonic()
            if self._interruption.is_wanted or left <= 0:
                yield from self._leave_off()
                break
            self._staff(open_tasks)
            self._assign()
            for outcome in self._outcomes(min(left, POLL_SECONDS)):
                open_tasks -= 1
                yield outcome
                open_tasks = self._take(source, open_tasks)
                self._assign()
        self._interruption.heed()

    def _take(self, source: Iterator[Task | None], open_tasks: int) -> int:
        """Take tasks until every worker has one; how many are open then."""
        while open_tasks < self.settings.workers and not self._interruption.is_wanted:
            task = next(source, None)
            if task is None:
                break
            self._attempts[task_name(task)] = 0
            self._told.pop(task_name(task), None)
            self._waiting.append(task)
            open_tasks += 1
        return open_tasks

    def _staff(self, open_tasks: int) -> None:
        """Start workers up to what the settings and the open tasks ask for."""
        wanted = min(self.settings.workers - self._given_up, max(open_tasks, 1))
        while len(self._workers) < wanted:
            self._spawn(self.settings.threads_per_worker)

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.task is None and self._waiting:
                worker.task = self._waiting.popleft()
                order = (
                    Measure(worker.task)
                    if isinstance(worker.task, MeasureJob)
                    else Train(worker.task)
                )
                worker.silence = 0.0
                worker.began = time.monotonic()
                worker.send(order)

    def _outcomes(self, seconds: float) -> Iterator[Outcome]:
        """What has come of the tasks within so many seconds."""
        began = time.monotonic()
        for worker, reply in replies(self._workers, seconds):
            if worker in self._workers:  # else it has said what it was replaced for
                yield from self._handle(worker, reply)
        # Time in which the driver was stopped, with its workers, is no silence.
        listened = min(time.monotonic() - began, 2 * POLL_SECONDS)
        for worker in list(self._workers):
            worker.silence += listened
            if worker.silence > self._patience(worker):
                minutes = self._patience(worker) / 60.0
                reason = f"its worker gave no sign of life for {minutes:g} min{worker.within}"
                yield from self._replace(worker, reason, worker.end_of_log())

    def _patience(self, worker: WorkerProcess) -> float:
        """Seconds for which a worker may be silent."""
        if worker.ready and worker.task is None:
            return math.inf
        seconds = 60.0 * self._config.runtime.heartbeat_minutes
        return seconds if worker.ready else LOADING * seconds

    def _leave_off(self) -> Iterator[Outcome]:
        """Have every task left where it stands, so that it can be taken up from there; outcomes
        that come meanwhile count."""
        self._waiting.clear()
        if self._interruption.is_wanted:
            self._listener("leaving off where training stands (Ctrl-C once more: at once)")
        for worker in self._workers:
            if worker.task is not None:
                worker.send(Pause())
        in_haste = self._interruption.is_wanted
        until = time.monotonic() + (PAUSE_SECONDS if in_haste else LATE_SECONDS)
        while (busy := [w for w in self._workers if w.task]) and time.monotonic() < until:
            if self._interruption.is_wanted and not in_haste:
                break
            for worker, reply in replies(busy, min(until - time.monotonic(), POLL_SECONDS)):
                match reply:
                    case Trained(result=outcome) | Measured(measurement=outcome):
                        worker.task = None
                        yield outcome
                    case Left():
                        worker.task = None
                    case Failed() | None:
                        self._end(worker)
                    case _:
                        pass
        for worker in busy:
            self._end(worker)

    def _handle(self, worker: WorkerProcess, reply: Reply | None) -> Iterator[Outcome]:
        match reply:
            case Trained(result=outcome) | Measured(measurement=outcome):
                worker.task = None
                yield outcome
            case Step(progress=progress):
                self._listener(progress)
            case Hello():
                settings = self.settings
                worker.send(self._prepare(settings, settings.precision))
            case Ready():
                self._lost_starts = 0
                self._welcome(worker, reply)
            case Failed() if worker.task is not None and self._is_final(worker.task, reply):
                self._tell_of_failure(worker)
                name, worker.task = task_name(worker.task), None
                told = reason_of(reply.error, reply.message, reply.problems)
                yield JobFailed(*name, told)
            case Failed(known=True, error="SetupError" | "ConfigError"):
                raise reported(reply)  # another worker would meet the same
            case Failed():
                reason = reason_of(reply.error, reply.message)
                yield from self._replace(worker, reason, reply.traceback)
            case None:
                yield from self._replace(
                    worker, f"its worker {worker.exit_reason()}", worker.end_of_log()
                )
            case _:
                pass

    def _is_final(self, task: Task, failed: Failed) -> bool:
        """Whether another worker would meet the same: a genome that the memory does not hold, or an
        error that a second worker tells of in the same words. Then the worker is not to blame. What
        is wrong with the config costs a measurement, but not what is trained."""
        if failed.error == OutOfMemory.__name__:
            return True
        if failed.error == ConfigError.__name__:
            return isinstance(task, MeasureJob)
        reason = reason_of(failed.error, failed.message)
        before = self._told.get(task_name(task))
        self._told[task_name(task)] = reason
        return before == reason

    def _replace(self, worker: WorkerProcess, reason: str, details: str) -> Iterator[Outcome]:
        """End a worker that failed. Its task is tried again on another, twice, then given up."""
        self._end(worker)
        if worker.task is None:
            self._note_lost_start(worker, reason, details)
            return
        self._tell_of_failure(worker)
        name = task_name(worker.task)
        self._attempts[name] += 1
        if self._attempts[name] < ATTEMPTS:
            self._listener(f"{name[0] or 'base'}: {reason}; trying again on a new worker")
            self._waiting.appendleft(worker.task)
        else:
            yield JobFailed(*name, reason)

    def _tell_of_failure(self, worker: WorkerProcess) -> None:
        """What a worker spent on a task in vain."""
        if worker.task is not None:
            seconds = round(time.monotonic() - worker.began, 3)
            self._listener(AttemptFailed(*task_name(worker.task), seconds))

    def _note_lost_start(self, worker: WorkerProcess, reason: str, details: str) -> None:
        """A worker ended without a task: another is started in its place, twice if none of them
        gets ready; then there is one worker less. Raises WorkerError where none is left."""
        self._lost_starts += 1
        if self._lost_starts < ATTEMPTS:
            self._listener(f"worker {worker.number} is lost: {reason}; starting another")
            return
        self._lost_starts = 0
        self._given_up += 1
        if not self._workers:
            raise WorkerError(f"worker {worker.number} could not start: {reason}", details=details)
        self._listener(f"going on with one worker less, since none could start: {reason}")

    # -- end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Dismiss idle workers, kill the others."""
        idle = [worker for worker in self._workers if worker.ready and worker.task is None]
        for worker in idle:
            worker.dismiss()
        in_haste = self._interruption.is_wanted
        until = time.monotonic() + (HASTY_GOODBYE_SECONDS if in_haste else GOODBYE_SECONDS)
        while idle and time.monotonic() < until:
            for worker, reply in replies(idle, until - time.monotonic()):
                if isinstance(reply, Goodbye):
                    self._listener(WorkerStopped(worker.number, reply.base_loads, reply.jobs))
                if reply is None or isinstance(reply, Goodbye):
                    idle.remove(worker)
        for worker in list(self._workers):
            self._end(worker)

    def _end(self, worker: WorkerProcess) -> None:
        """End a worker at once."""
        self._workers.remove(worker)
        worker.kill()
