"""What a run spends beside training and scoring its genomes: starting, measuring, and in vain."""

from __future__ import annotations

from coralx.records.events import (
    AttemptFailed,
    Event,
    FrontMeasured,
    RunResumed,
    RunStarted,
    WorkerStarted,
)
from coralx.records.subjects import HEAD


class Overheads:
    """Sums in seconds of workers. `start` and `measuring` are what every run pays, the others what
    this one paid in addition. Feed it events in the ledger's order."""

    def __init__(self) -> None:
        self.start = 0.0
        """The first start, with each worker's loading of the base."""
        self.restarts = 0.0
        """Resumes, and workers that took the place of others."""
        self.measuring = 0.0
        """The final measurement of each adapter, once."""
        self.measured_again = 0.0
        self.attempts: list[AttemptFailed] = []
        """Those that failed."""
        self.head = 0.0
        """What a head on the frozen base took but for its training; no part of the others."""
        self._measured: set[str | None] = set()
        self._is_first = True
        self._joining = 0

    def apply(self, event: Event) -> None:
        """Take one more event into account."""
        match event:
            case RunStarted():
                self.start = event.startup_seconds
                self._joining, self._is_first = event.settings.workers - 1, True
            case RunResumed():
                self.restarts += event.startup_seconds
                self._joining, self._is_first = 0, True
            case WorkerStarted():
                self._join(event.load_seconds)
            case AttemptFailed() if event.genome == HEAD:
                self.head += event.seconds
            case FrontMeasured(measurement=measurement) if measurement.genome == HEAD:
                self.head += measurement.seconds
            case AttemptFailed():
                self.attempts.append(event)
            case FrontMeasured(measurement=measurement):
                if measurement.genome in self._measured:
                    self.measured_again += measurement.seconds
                else:
                    self.measuring += measurement.seconds
                self._measured.add(measurement.genome)
            case _:
                pass

    def _join(self, load_seconds: float) -> None:
        """The first worker of a process has loaded the base within its start."""
        if self._is_first:
            self._is_first = False
        elif self._joining:
            self._joining -= 1
            self.start += load_seconds
        else:
            self.restarts += load_seconds
