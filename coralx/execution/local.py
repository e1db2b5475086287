"""Workers on this machine, one process each: a GPU has one or more, a CPU's cores are shared
out."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator

from coralx.config.schema import Config
from coralx.errors import WorkerError
from coralx.execution.attempts import ATTEMPTS, Attempts
from coralx.execution.base_description import described_base
from coralx.execution.devices import Devices
from coralx.execution.executor import AnyJob, JobOutcome, Listener, genome_and_stage, reason_of
from coralx.execution.messages import (
    Derive,
    DerivingDone,
    Failed,
    Hello,
    Measure,
    MeasuringDone,
    Order,
    Prepare,
    Ready,
    Reply,
    Step,
    Train,
    TrainingDone,
    TrainPack,
)
from coralx.execution.packs import Pack, jobs_of, left_of, next_work, wanted_pack
from coralx.execution.process import (
    POLL_SECONDS,
    Expected,
    LostWorker,
    WorkerProcess,
    await_reply,
    environment,
    replies,
    reported,
)
from coralx.execution.stopping import dismiss, pause_jobs
from coralx.records.events import AttemptFailed, WorkerStarted
from coralx.records.jobs import DeriveJob, JobFailed, MeasureJob
from coralx.records.run_facts import DeviceMemory, Facts, Footprint, Settings, decided
from coralx.system.containers import cores
from coralx.system.signals import Interruption

LOADING = 6
"""So many times longer may a worker be silent while it loads the base: a hub may be slow."""


class LocalExecutor:
    """The first worker measures what the others then reuse; they join as they become ready."""

    def __init__(
        self, backend: str, interruption: Interruption | None = None, *, has_jobs: bool = False
    ) -> None:
        self._backend = backend
        self._has_jobs = has_jobs
        """Whether there will be jobs for all workers, so that they may start before they are
        asked for."""
        self._interruption = interruption or Interruption()
        self._workers: list[WorkerProcess] = []
        self._waiting: deque[AnyJob] = deque()
        """Jobs that no worker has yet."""
        self._attempts = Attempts()
        self._spawned = 0
        """Workers started so far; the next one's number."""
        self._lost_starts = 0
        """Workers that ended before they were ready, one after the other."""
        self._given_up = 0
        """How many workers fewer there are than the settings say, as none could start."""
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
                for worker in list(self._workers):
                    self._end(worker)
        raise RuntimeError("the loop above ends by itself")

    def _start(self, config: Config, settings: Settings | None) -> Facts:
        """Start the first worker. Raises LostWorker where it dies or hangs before it is ready."""
        # At most: how many it is to use is decided once it has said on what device it trains.
        threads = settings.threads_per_worker if settings else cores()
        self._devices = Devices(config, self._backend)
        first = self._spawn(threads)
        likely = self._devices.likely(settings) if self._has_jobs else None
        early = self._spawn_early(likely) if likely is not None else []
        hello = self._await(first, Hello)
        if self._devices.learn(hello):
            self._end(first)
            first = self._spawn(threads)
            hello = self._await(first, Hello)
        plan = likely if hello.device == "cpu" else None
        if plan is None:
            for worker in early:
                self._end(worker)
            plan = self._devices.plan(settings, hello, self._describe, self._listener)
        pack = wanted_pack(config, self._backend, settings)
        first.send(self._prepare(plan, plan.precision or None, pack))
        ready = self._await(first, Ready)
        self._settings = decided(plan, ready.facts)
        self._welcome(first, ready)
        return self._devices.complete(ready.facts)

    def _spawn_early(self, likely: Settings) -> list[WorkerProcess]:
        """The other workers: importing their libraries takes each of them a core, and the first one
        seconds in which the other cores have nothing to do."""
        return [self._spawn(likely.threads_per_worker) for _ in range(1, likely.workers)]

    def _describe(self, memory: DeviceMemory) -> Footprint:
        self._listener("estimating how many workers fit on a GPU")
        return described_base(self._config, memory, self._interruption)

    def _await(self, worker: WorkerProcess, expected: type[Expected]) -> Expected:
        patience = self._patience(worker)
        return await_reply(worker, expected, self._listener, self._interruption, patience)

    def _prepare(self, settings: Settings, precision: str | None, pack: int | None = 1) -> Prepare:
        return Prepare(
            config=self._config.model_dump(mode="json"),
            precision=precision,
            threads=settings.threads_per_worker,
            revision=settings.revision,
            checkpointing=settings.checkpointing,
            memory=self._devices.memory,
            pack=pack,
        )

    def _spawn(self, threads: int) -> WorkerProcess:
        # The slot of a worker that failed is free again, and with it that worker's GPU.
        taken = {worker.slot for worker in self._workers}
        slot = next(slot for slot in itertools.count() if slot not in taken)
        extra = environment(self._config) | self._devices.environment_of(slot)
        worker = WorkerProcess(self._spawned, self._backend, threads, slot, extra)
        self._spawned += 1
        self._workers.append(worker)
        return worker

    def _welcome(self, worker: WorkerProcess, ready: Ready) -> None:
        worker.ready = True
        self._listener(
            WorkerStarted(
                worker.number,
                worker.pid,
                ready.facts.device,
                ready.base_loads,
                ready.load_seconds,
                round(time.monotonic() - worker.spawned, 3),
            )
        )

    # -- work ------------------------------------------------------------------------------------

    def run(
        self, jobs: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        source = iter(jobs)
        open_jobs = self._take(source, 0)
        while open_jobs:
            left = math.inf if deadline is None else deadline - time.monotonic()
            if self._interruption.is_wanted or left <= 0:
                # Here and not by an exception: outcomes that come meanwhile are to be recorded.
                yield from self._pause()
                break
            self._staff(open_jobs)
            self._assign()
            for outcome in self._outcomes(min(left, POLL_SECONDS)):
                open_jobs -= 1
                yield outcome
                open_jobs = self._take(source, open_jobs)
                self._assign()
        self._interruption.raise_if_requested()

    def _take(self, source: Iterator[AnyJob | None], open_jobs: int) -> int:
        """Take jobs until every worker has as many as it does together; how many are open then."""
        most = self._most_workers * self.settings.pack
        while open_jobs < most and not self._interruption.is_wanted:
            job = next(source, None)
            if job is None:
                break
            self._attempts.begin(job)
            self._waiting.append(job)
            open_jobs += 1
        return open_jobs

    @property
    def _most_workers(self) -> int:
        return self.settings.workers - self._given_up

    def _staff(self, open_jobs: int) -> None:
        """Start workers up to what the settings and the open jobs ask for."""
        needed = min(self._most_workers, max(open_jobs, 1))
        while len(self._workers) < needed:
            self._spawn(self.settings.threads_per_worker)

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.job is None and self._waiting:
                worker.job = work = self._next_work()
                worker.silence = 0.0
                worker.began = time.monotonic()
                worker.send(_order(work))

    def _next_work(self) -> AnyJob | Pack:
        """What the next free worker is to do, of the jobs that wait."""
        busy = sum(worker.job is not None for worker in self._workers)
        free = max(1, self.settings.workers - busy)
        return next_work(self._waiting, self.settings.pack, free, self._attempts.is_first)

    def _outcomes(self, seconds: float) -> Iterator[JobOutcome]:
        """What has come of the jobs within so many seconds."""
        began = time.monotonic()
        for worker, reply in replies(self._workers, seconds):
            if worker in self._workers:  # else it was replaced for a reply before this one
                yield from self._handle(worker, reply)
        # Time in which the driver was stopped, with its workers, is no silence.
        listened = min(time.monotonic() - began, 2 * POLL_SECONDS)
        for worker in list(self._workers):
            worker.silence += listened
            if worker.silence > self._patience(worker):
                silence = f"{self._patience(worker) / 60.0:g} min{worker.within}"
                reason = f"{_subject(worker)} gave no sign of life for {silence}"
                yield from self._replace(worker, reason, worker.end_of_log())

    def _patience(self, worker: WorkerProcess) -> float:
        """Seconds for which a worker may be silent."""
        if worker.ready and worker.job is None:
            return math.inf
        seconds = 60.0 * self._config.runtime.heartbeat_minutes
        return seconds if worker.ready else LOADING * seconds

    def _pause(self) -> Iterator[JobOutcome]:
        """Drop the jobs that wait, and have those under way paused."""
        self._waiting.clear()
        if self._interruption.is_wanted:
            self._listener("stopping; what is trained so far is kept (Ctrl-C again: stop at once)")
        yield from pause_jobs(self._workers, self._interruption, self._end)

    def _handle(self, worker: WorkerProcess, reply: Reply | None) -> Iterator[JobOutcome]:
        match reply:
            case (
                TrainingDone(result=outcome)
                | MeasuringDone(measurement=outcome)
                | DerivingDone(derived=outcome)
            ):
                worker.job = left_of(worker.job, outcome)
                yield outcome
            case Step(progress=progress):
                self._listener(progress)
            case Hello() if (why := self._devices.why_unfit(reply)) is not None:
                yield from self._replace(worker, why, "")
            case Hello():
                settings = self.settings
                worker.send(self._prepare(settings, settings.precision))
            case Ready():
                self._lost_starts = 0
                self._welcome(worker, reply)
            case Failed() if self._is_final(worker, reply):
                self._report_attempt(worker)
                (job,), worker.job = jobs_of(worker.job), None
                reason = reason_of(reply.error, reply.message, reply.problems)
                yield JobFailed(*genome_and_stage(job), reason)
            case Failed(known=True, error="SetupError" | "ConfigError"):
                raise reported(reply)  # another worker would report the same
            case Failed():
                reason = reason_of(reply.error, reply.message)
                yield from self._replace(worker, reason, reply.traceback)
            case None:
                reason = f"{_subject(worker)} {worker.exit_reason()}"
                yield from self._replace(worker, reason, worker.end_of_log())
            case _:
                pass

    def _is_final(self, worker: WorkerProcess, reply: Failed) -> bool:
        """Whether another worker would report the same of the job. What a pack fails of, its jobs
        may not, each alone."""
        job = worker.job
        return job is not None and not isinstance(job, Pack) and self._attempts.is_final(job, reply)

    def _replace(self, worker: WorkerProcess, reason: str, details: str) -> Iterator[JobOutcome]:
        """End a worker that failed. Its jobs are tried again on another, one by one; each twice,
        then it is given up."""
        self._end(worker)
        if worker.job is None:
            self._note_lost_start(worker, reason, details)
            return
        self._report_attempt(worker)
        for job in reversed(jobs_of(worker.job)):
            genome, stage = genome_and_stage(job)
            if self._attempts.fail(job):
                self._listener(f"{genome or 'base'}: {reason}; trying again on a new worker")
                self._waiting.appendleft(job)
            else:
                yield JobFailed(genome, stage, reason)

    def _report_attempt(self, worker: WorkerProcess) -> None:
        """Report what a worker spent on jobs without a result, in equal shares."""
        jobs = jobs_of(worker.job)
        for job in jobs:
            seconds = round((time.monotonic() - worker.began) / len(jobs), 3)
            self._listener(AttemptFailed(*genome_and_stage(job), seconds))

    def _note_lost_start(self, worker: WorkerProcess, reason: str, details: str) -> None:
        """A worker ended without a job: another is started in its place, twice if none of them
        gets ready; then there is one worker fewer. Raises WorkerError where none is left."""
        self._lost_starts += 1
        if self._lost_starts < ATTEMPTS:
            self._listener(f"worker {worker.number} failed: {reason}; starting another")
            return
        self._lost_starts = 0
        self._given_up += 1
        if not self._workers:
            raise WorkerError(f"worker {worker.number} could not start: {reason}", details=details)
        self._listener(
            f"worker {worker.number} could not start: {reason}; continuing with one worker fewer"
        )

    # -- end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Dismiss idle workers, kill the others."""
        idle = [worker for worker in self._workers if worker.ready and worker.job is None]
        dismiss(idle, self._interruption, self._listener)
        for worker in list(self._workers):
            self._end(worker)

    def _end(self, worker: WorkerProcess) -> None:
        """End a worker at once."""
        self._workers.remove(worker)
        worker.kill()


def _order(work: AnyJob | Pack) -> Order:
    """What to tell a worker that is to do the work."""
    match work:
        case Pack(jobs=jobs):
            return TrainPack(jobs)
        case MeasureJob():
            return Measure(work)
        case DeriveJob():
            return Derive(work)
        case _:
            return Train(work)


def _subject(worker: WorkerProcess) -> str:
    """How a reason begins that follows the name of a genome, or else that of the worker."""
    return "its worker" if worker.job is not None else "it"
