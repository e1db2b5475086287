"""Where what workers report goes: to the ledger and the live view."""

from __future__ import annotations

from contextlib import suppress

from coralx.errors import DamagedRunError, SetupError
from coralx.execution.executor import StatusUpdate
from coralx.records.events import (
    AttemptFailed,
    Event,
    RunResumed,
    RunStarted,
    WorkerStarted,
    WorkerStopped,
)
from coralx.report.live import View
from coralx.storage.ledger import Ledger
from coralx.storage.lock import Owner


class Session:
    """What a process at work on a run has open: view, ledger and ownership. Workers start before
    the run folder exists, so their first events wait for the ledger."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.ledger: Ledger | None = None
        self.owner: Owner | None = None  # leaves signs of life in the run folder
        self._waiting: list[Event] = []

    def hear(self, signal: StatusUpdate) -> None:
        """What the executor calls with each report; raises where the run folder was taken away."""
        if isinstance(signal, WorkerStopped):
            with suppress(SetupError, DamagedRunError):  # must not hide why the run ends
                self._record(signal)
            return
        if self.ledger is not None:
            self.ledger.require_in_place()
        if self.owner is not None:
            self.owner.beat()
        if isinstance(signal, WorkerStarted | AttemptFailed):
            self._record(signal)
        else:
            self.view.on_signal(signal)

    def _record(self, event: WorkerStarted | WorkerStopped | AttemptFailed) -> None:
        if self.ledger is None:
            self._waiting.append(event)
        else:
            self.ledger.append(event)

    def open(self, ledger: Ledger, first: RunStarted | RunResumed) -> None:
        """Show the view what the ledger holds, then append `first` and what has waited."""
        for event in ledger:
            self.view.absorb(event)
        if (owner := self.owner) is not None:
            ledger.subscribe(lambda _: owner.reached(ledger.entries[-1].seq))
        ledger.subscribe(self.view.on_event)
        self.ledger = ledger
        for event in (first, *self._waiting):
            ledger.append(event)
