"""CoralX from Python: the search and its report, as the commands use them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from coralx.config import Config, dump_yaml, load_config
from coralx.config.modes import mode_of
from coralx.errors import DamagedRunError, Interrupted
from coralx.events import Event, RunCompleted, RunResumed, RunStarted, WorkerStarted, WorkerStopped
from coralx.execution.executor import Executor, Signal
from coralx.execution.inprocess import InProcessExecutor
from coralx.execution.local import LocalExecutor
from coralx.files import write_atomically
from coralx.records import Facts, Settings
from coralx.report.live import Silent, View
from coralx.report.summary import pareto_csv, summarise
from coralx.run.checkpoints import hand_over
from coralx.run.engine import Engine
from coralx.run.environment import hardware, versions
from coralx.run.history import History
from coralx.run.layout import RunLayout, claim_run, refuse_taken
from coralx.run.ledger import FORMAT, Ledger
from coralx.run.lock import owning
from coralx.training.backend import choose


@dataclass(frozen=True)
class Outcome:
    """A completed run: where it lies, and the content of its `report.json`."""

    layout: RunLayout
    report: dict[str, Any]


class _Session:
    """Carries what workers say to ledger and view. Workers start before the run folder exists, so
    their first events wait for the ledger."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.ledger: Ledger | None = None
        self._waiting: list[Event] = []

    def hear(self, signal: Signal) -> None:
        if not isinstance(signal, WorkerStarted | WorkerStopped):
            self.view.on_signal(signal)
        elif self.ledger is None:
            self._waiting.append(signal)
        else:
            self.ledger.append(signal)

    def open(self, ledger: Ledger, first: RunStarted | RunResumed) -> None:
        for event in ledger:
            self.view.on_event(event)
        ledger.subscribe(self.view.on_event)
        self.ledger = ledger
        for event in (first, *self._waiting):
            ledger.append(event)


def evolve(config: Config, name: str | None = None, view: View | None = None) -> Outcome:
    """Run the search that a resolved config describes, in a new folder under `runs/`.

    Raises ConfigError for a model or data that do not fit, before any folder is made; Interrupted
    on Ctrl-C, after which `resume` goes on.
    """
    if name is not None:
        refuse_taken(name)
    with _executor(config) as executor, view or Silent() as watching:
        watching.begin(config)
        session = _Session(watching)
        began = time.monotonic()
        facts = _start(executor, config, None, session)
        layout = claim_run(name or config.experiment.name, chosen=name is not None)
        with owning(layout), _resumable(layout):
            write_atomically(layout.config, dump_yaml(config))
            layout.ledger.unlink(missing_ok=True)  # a torn first line of a run that never began
            first = RunStarted(
                format=FORMAT,
                run=layout.name,
                mode=mode_of(config),
                seed=config.experiment.seed,
                facts=facts,
                settings=executor.settings,
                versions=versions(),
                hardware=hardware(),
                startup_seconds=round(time.monotonic() - began, 3),
            )
            session.open(Ledger(layout.ledger), first)
            return _complete(config, facts, executor, session, layout)


def resume(layout: RunLayout, view: View | None = None) -> Outcome:
    """Go on with a run where its ledger ends; of a completed run, write the reports again.

    Raises SetupError while another process owns the run, DamagedRunError for a damaged ledger.
    """
    config = run_config(layout)
    with owning(layout), _resumable(layout):
        ledger = Ledger(layout.ledger)
        history = History(ledger)
        if history.completed is not None:
            return _report(config, ledger, layout)
        if history.started is None:
            raise DamagedRunError(f"{layout.ledger}: does not begin with its first event")
        with _executor(config) as executor, view or Silent() as watching:
            watching.begin(config)
            session = _Session(watching)
            began = time.monotonic()
            facts = _start(executor, config, history.started.settings, session)
            session.open(ledger, RunResumed(round(time.monotonic() - began, 3)))
            return _complete(config, facts, executor, session, layout)


def run_config(layout: RunLayout) -> Config:
    """The resolved config of a run. Raises DamagedRunError where it is missing."""
    if not layout.config.is_file():
        raise DamagedRunError(f"{layout.config}: missing")
    return load_config(layout.config)


def read_report(layout: RunLayout) -> dict[str, Any]:
    """The report of a run in whatever state it is, made anew from config and ledger."""
    return summarise(run_config(layout), Ledger.read(layout.ledger), layout)


@contextmanager
def _executor(config: Config) -> Iterator[Executor]:
    """The executor for a config's backend; its workers are gone when the block ends."""
    name, _ = choose(config.runtime.backend)
    wanted = config.runtime.executor
    in_process = name == "simulated" if wanted == "auto" else wanted == "in-process"
    executor: Executor = InProcessExecutor(name) if in_process else LocalExecutor(name)
    try:
        yield executor
    finally:
        executor.close()


def _start(
    executor: Executor, config: Config, settings: Settings | None, session: _Session
) -> Facts:
    facts = executor.start(config, settings, session.hear)
    _, reason = choose(config.runtime.backend)
    return replace(facts, backend_reason=reason)


@contextmanager
def _resumable(layout: RunLayout) -> Iterator[None]:
    """Turn Ctrl-C into an error that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; everything that was completed is in {layout.root}",
            f"Go on with: coralx evolve --resume {layout.name}",
        ) from None


def _complete(
    config: Config, facts: Facts, executor: Executor, session: _Session, layout: RunLayout
) -> Outcome:
    """Search to the end, hand the front over, report."""
    assert session.ledger is not None
    front = Engine(config, facts, executor, session.ledger, layout).run()
    executor.close()
    session.ledger.append(RunCompleted(front))
    return _report(config, session.ledger, layout)


def _report(config: Config, ledger: Ledger, layout: RunLayout) -> Outcome:
    """Write `best/`, `report.json` and `pareto.csv`."""
    completed = History(ledger).completed
    last = config.hyperband_config.training_stages[-1].name
    hand_over(layout, completed.front if completed else (), last)
    report = summarise(config, ledger.entries, layout)
    write_atomically(layout.report, json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_atomically(layout.pareto, pareto_csv(report))
    return Outcome(layout, report)
