"""Workers on this machine, one process each: a GPU has one, a CPU's cores are shared out."""

from __future__ import annotations

import itertools
import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from coralx.config.schema import Config
from coralx.devices import VARIABLE
from coralx.errors import WorkerError
from coralx.events import WorkerStarted, WorkerStopped
from coralx.execution.executor import Listener, Outcome, Task, task_name
from coralx.execution.messages import (
    Failed,
    Goodbye,
    Hello,
    Measure,
    Measured,
    Prepare,
    Ready,
    Reply,
    Step,
    Train,
    Trained,
)
from coralx.execution.placement import cores, late_pins, pins, share_out
from coralx.execution.process import GOODBYE_SECONDS, WorkerProcess, await_reply, environment
from coralx.facts import Facts, Settings
from coralx.records import JobFailed, MeasureJob

ATTEMPTS = 3
DAY = 86_400.0


class LocalExecutor:
    """The first worker measures what the others then reuse; they join as they become ready."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._workers: list[WorkerProcess] = []
        self._waiting: deque[Task] = deque()
        self._attempts: dict[tuple[str | None, str], int] = {}
        self._spawned = 0
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
        threads = settings.threads_per_worker if settings else cores()
        self._pins = pins(config, self._backend)
        first = self._spawn(threads)
        hello = await_reply(first, Hello, listener)
        if not hello.device.startswith("cuda") or not self._pins:
            self._pins = late_pins(config, hello.device, hello.device_count)
        plan = settings or share_out(config, hello.device, len(self._pins) or hello.device_count)
        first.send(self._prepare(plan.precision or None, plan.threads_per_worker))
        ready = await_reply(first, Ready, listener)
        self._settings = Settings(plan.workers, plan.threads_per_worker, ready.facts.precision)
        self._welcome(first, ready)
        if not self._pins:
            return ready.facts
        return replace(ready.facts, device_count=len(self._pins))  # a worker sees but its own

    def _prepare(self, precision: str | None, threads: int) -> Prepare:
        return Prepare(self._config.model_dump(mode="json"), precision, threads)

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
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                self._abandon()
                return
            self._staff(open_tasks)
            self._assign()
            for worker, reply in self._replies(left):
                for outcome in self._handle(worker, reply):
                    open_tasks -= 1
                    yield outcome
                    open_tasks = self._take(source, open_tasks)
                self._assign()

    def _take(self, source: Iterator[Task | None], open_tasks: int) -> int:
        """Take tasks until every worker has one; how many are open then."""
        while open_tasks < self.settings.workers:
            task = next(source, None)
            if task is None:
                break
            self._attempts[task_name(task)] = 0
            self._waiting.append(task)
            open_tasks += 1
        return open_tasks

    def _staff(self, open_tasks: int) -> None:
        """Start workers up to what the settings and the open tasks ask for."""
        wanted = min(self.settings.workers, max(open_tasks, 1))
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
                worker.send(order)

    def _abandon(self) -> None:
        """Drop all that is not done: no task waits, and no worker goes on with one."""
        self._waiting.clear()
        for worker in [worker for worker in self._workers if worker.task is not None]:
            self._workers.remove(worker)
            worker.kill()

    def _replies(self, seconds: float | None) -> Iterator[tuple[WorkerProcess, Reply | None]]:
        """Wait, at most so long, until a worker says something, and pass on what has come."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker, selectors.EVENT_READ, worker)
            # epoll counts milliseconds in 32 bits, which are 24 days
            for key, _ in selector.select(None if seconds is None else min(seconds, DAY)):
                for reply in key.data.receive():
                    yield key.data, reply

    def _handle(self, worker: WorkerProcess, reply: Reply | None) -> Iterator[Outcome]:
        match reply:
            case Trained(result=outcome) | Measured(measurement=outcome):
                worker.task = None
                yield outcome
            case Step(progress=progress):
                self._listener(progress)
            case Hello():
                settings = self.settings
                worker.send(self._prepare(settings.precision, settings.threads_per_worker))
            case Ready():
                self._welcome(worker, reply)
            case Failed():
                yield from self._replace(worker, f"{reply.error}: {reply.message}", reply.traceback)
            case None:
                yield from self._replace(
                    worker, f"its worker was {worker.exit_reason()}", worker.end_of_log()
                )
            case _:
                pass

    def _replace(self, worker: WorkerProcess, reason: str, details: str) -> Iterator[Outcome]:
        """End a worker that failed. Its task is tried again on another, twice, then given up."""
        task = worker.task
        if task is None:
            raise WorkerError(f"worker {worker.number} could not start: {reason}", details)
        self._workers.remove(worker)
        worker.kill()
        name = task_name(task)
        self._attempts[name] += 1
        if self._attempts[name] < ATTEMPTS:
            self._listener(f"{name[0] or 'base'}: {reason}; trying again on a new worker")
            self._waiting.appendleft(task)
        else:
            yield JobFailed(*name, reason)

    # -- end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Dismiss idle workers, kill the others."""
        workers, self._workers = self._workers, []
        for worker in workers:
            if worker.ready and worker.task is None:
                self._part(worker)
            worker.kill()

    def _part(self, worker: WorkerProcess) -> None:
        worker.dismiss()
        with selectors.DefaultSelector() as selector:
            selector.register(worker, selectors.EVENT_READ)
            while selector.select(GOODBYE_SECONDS):
                for reply in worker.receive():
                    if isinstance(reply, Goodbye):
                        self._listener(WorkerStopped(worker.number, reply.base_loads, reply.jobs))
                    if reply is None or isinstance(reply, Goodbye):
                        return
