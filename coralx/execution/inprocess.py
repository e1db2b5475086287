"""The executor that runs every job in this very process: for simulation and for debugging."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from coralx.backends.protocol import Backend, Paused, create
from coralx.config.schema import Config
from coralx.errors import ConfigError, CoralXError, SetupError, WorkerError
from coralx.execution.executor import AnyJob, JobOutcome, Listener, genome_and_stage, reason_of
from coralx.execution.placement import idle_gpu_warning, require_opened
from coralx.records.events import AttemptFailed, WorkerStarted, WorkerStopped
from coralx.records.jobs import DeriveJob, Job, JobFailed, MeasureJob
from coralx.records.run_facts import REVISION, Facts, Settings, decided
from coralx.system.signals import Interruption


class InProcessExecutor:
    """One worker, this process, where a debugger sees errors as they are raised. They end as those
    of a worker process do, but nothing is tried again: there is no other worker to try it on."""

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
        with _known_errors():
            self._listener, self._backend = listener, create(self._name)
        # Those of a run that is resumed have a precision.
        plan = settings or Settings(1, _threads(config), "", REVISION)
        with _known_errors():
            device, _ = self._backend.devices()
            require_opened(device)
            facts = self._backend.prepare(
                config,
                plan.precision or None,
                plan.threads_per_worker,
                listener,
                plan.revision,
                plan.checkpointing,
            )
        self._settings = decided(plan, facts)
        load_seconds = round(time.monotonic() - began, 3)
        loads = self._backend.base_loads
        listener(WorkerStarted(0, os.getpid(), facts.device, loads, load_seconds))
        return replace(facts, warnings=(*facts.warnings, *idle_gpu_warning(device)))

    def run(
        self, jobs: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        if self._backend is None or self._listener is None:
            raise RuntimeError("the executor has not been started")
        for job in jobs:
            if deadline is not None and time.monotonic() >= deadline:
                return
            if job is None:
                raise RuntimeError("no job is left, and none is under way that could bring one")
            self._interruption.raise_if_requested()
            self._jobs += 1
            try:
                outcome = self._done(job, self._backend, self._listener)
            except Paused:  # which the beat raises for an interruption alone
                raise KeyboardInterrupt from None
            yield outcome

    def _done(self, job: AnyJob, backend: Backend, listener: Listener) -> JobOutcome:
        began = time.monotonic()
        try:
            if isinstance(job, MeasureJob):
                return backend.measure(job, self._beat)
            if isinstance(job, DeriveJob):
                return backend.derive(job, self._beat)
            return backend.train(job, listener, self._beat)
        except (Paused, SetupError):
            raise
        except Exception as error:
            problems = error.problems if isinstance(error, ConfigError) else ()
            # A wrong config costs a measurement or a derivation; training would fail for all.
            if problems and isinstance(job, Job):
                raise
            _show(error)
            listener(AttemptFailed(*genome_and_stage(job), round(time.monotonic() - began, 3)))
            reason = reason_of(type(error).__name__, str(error), problems)
            return JobFailed(*genome_and_stage(job), reason)

    def _beat(self) -> None:
        if self._interruption.is_wanted:
            raise Paused

    def close(self) -> None:
        if self._backend is not None and self._listener is not None:
            self._listener(WorkerStopped(0, self._backend.base_loads, self._jobs))
            self._backend = None


def _threads(config: Config) -> int:
    """One, unless the config says otherwise."""
    threads = config.runtime.threads_per_worker
    return 1 if threads == "auto" else threads


@contextmanager
def _known_errors() -> Iterator[None]:
    """In the block, what is raised for an unknown reason becomes a WorkerError."""
    try:
        yield
    except CoralXError:
        raise
    except Exception as error:
        message = f"the worker failed: {reason_of(type(error).__name__, str(error))}"
        details = "".join(traceback.format_exception(error))
        raise WorkerError(message, details=details) from error


def _show(error: Exception) -> None:
    """The traceback, for who asked for it."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
