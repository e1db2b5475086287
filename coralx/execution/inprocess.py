"""The executor that runs every task in this very process: for simulation and for debugging."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from coralx.config.schema import Config
from coralx.errors import ConfigError, OutOfMemory, SetupError
from coralx.events import WorkerStarted, WorkerStopped
from coralx.execution.executor import Listener, Outcome, Task, task_name
from coralx.facts import Facts, Settings
from coralx.interruption import Interruption
from coralx.records import JobFailed, MeasureJob
from coralx.training.backend import Backend, Paused, create


class InProcessExecutor:
    """One worker, this process. Errors are not caught, so a debugger sees them where they are; but
    a genome too large for the device fails alone."""

    def __init__(self, backend: str, interruption: Interruption | None = None) -> None:
        self._name = backend
        self._interruption = interruption or Interruption()
        self._backend: Backend | None = None
        self._listener: Listener | None = None
        self._settings: Settings | None = None
        self._jobs = 0

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            raise RuntimeError("the executor has not been started")
        return self._settings

    def start(self, config: Config, settings: Settings | None, listener: Listener) -> Facts:
        began = time.monotonic()
        self._backend, self._listener = create(self._name), listener
        threads = config.runtime.threads_per_worker
        threads = settings.threads_per_worker if settings else 1 if threads == "auto" else threads
        precision = settings.precision if settings else None
        facts = self._backend.prepare(config, precision, threads, listener)
        self._settings = settings or Settings(1, threads, facts.precision)
        load_seconds = round(time.monotonic() - began, 3)
        loads = self._backend.base_loads
        listener(WorkerStarted(0, os.getpid(), facts.device, loads, load_seconds))
        return facts

    def run(self, tasks: Iterable[Task | None], deadline: float | None = None) -> Iterator[Outcome]:
        if self._backend is None or self._listener is None:
            raise RuntimeError("the executor has not been started")
        for task in tasks:
            if deadline is not None and time.monotonic() >= deadline:
                return
            if task is None:
                raise RuntimeError("no task is left, and none is under way that could bring one")
            self._interruption.heed()
            self._jobs += 1
            try:
                outcome = self._done(task, self._backend, self._listener)
            except Paused:
                raise KeyboardInterrupt from None
            yield outcome

    def _done(self, task: Task, backend: Backend, listener: Listener) -> Outcome:
        try:
            if isinstance(task, MeasureJob):
                return backend.measure(task, self._beat)
            return backend.train(task, listener, self._beat)
        except OutOfMemory as error:
            return JobFailed(*task_name(task), error.message)
        except (Paused, SetupError):
            raise
        except Exception as error:
            if not isinstance(task, MeasureJob):
                raise
            return JobFailed(*task_name(task), _reason_of(error))  # what is trained is not lost

    def _beat(self) -> None:
        if self._interruption.is_wanted:
            raise Paused

    def close(self) -> None:
        if self._backend is not None and self._listener is not None:
            self._listener(WorkerStopped(0, self._backend.base_loads, self._jobs))
            self._backend = None


def _reason_of(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "; ".join(error.problems)
    return f"{type(error).__name__}: {error}"
