"""What tests of whole searches share: how one is killed, and what two of them have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from coralx.records.events import (
    Event,
    GenerationCompleted,
    GenerationStarted,
    RunCompleted,
    StageCompleted,
    StageDecided,
)
from coralx.report.live import Silent
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger

DECISIONS = (GenerationStarted, StageDecided, GenerationCompleted, RunCompleted)


@dataclass
class KillAfter(Silent):
    """A view that stops the process once it has seen `events` new events in the ledger."""

    events: int

    def on_event(self, event: Event) -> None:
        self.events -= 1
        if self.events == 0:
            raise KeyboardInterrupt


@dataclass
class KillAt(Silent):
    """A view that stops the process at the `count`-th event of a kind."""

    kind: type[Event]
    count: int = 1

    def on_event(self, event: Event) -> None:
        self.count -= isinstance(event, self.kind)
        if self.count == 0:
            self.count = -1
            raise KeyboardInterrupt


def events_of_kind(layout: RunLayout, kind: type[Event]) -> list[Any]:
    """The run's events of that kind, in order."""
    return [event for event in Ledger.read_events(layout.ledger) if isinstance(event, kind)]


def events_of(layout: RunLayout) -> list[Event]:
    return [entry.event for entry in Ledger.read(layout.ledger)]


def story(layout: RunLayout) -> list[Event]:
    """What was trained, measured and decided, without what belongs to one machine or folder."""
    kept: list[Event] = []
    for event in events_of(layout):
        if isinstance(event, StageCompleted):
            kept.append(replace(event, result=replace(event.result, checkpoint=None)))
        elif isinstance(event, DECISIONS):
            kept.append(event)
    return kept


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    machine = {"run", "wall_seconds", "workers", "profile", "hardware", "versions"}
    return {key: value for key, value in report.items() if key not in machine}
