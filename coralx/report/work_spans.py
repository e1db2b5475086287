"""What the workers of a run did when, read off its ledger.

An event of a finished job tells when it ended and how long it took. Which worker did it is not
recorded: jobs are laid into as many lanes as there were workers, each into one that was free, so
that a lane is a worker but for its number. Jobs that overlap more than there are lanes, as where a
paused one counts what it did before, are cut to what is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coralx.records.events import (
    AttemptFailed,
    CheckpointRestored,
    Event,
    FrontMeasured,
    GenomeDerived,
    RunResumed,
    RunStarted,
    StageCompleted,
    TrainedBeside,
    WorkerStarted,
)
from coralx.records.results import StageResult
from coralx.storage.ledger import Entry

BESIDE = "beside the search"
"""In place of a stage: what is trained to compare the search with."""


@dataclass(frozen=True)
class Span:
    """Something that one worker did. Times are seconds since the beginning of its process."""

    begin: float
    end: float
    kind: str
    """"train", "derive", "measure", "failed" (an attempt without a result) or "load"."""
    stage: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    """train: shares of the time, by activity, with sum 1."""

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class Process:
    """One process at work on a run: from its start to the last event that it wrote."""

    seconds: float
    lanes: tuple[tuple[Span, ...], ...]
    """By worker, what it did one after the other."""
    lost_seconds: float = 0.0
    """Seconds of workers after its last event, where it was killed: nobody knows what they did."""


def processes(entries: Sequence[Entry]) -> list[Process]:
    """The processes that worked on the run, in order."""
    found: list[Process] = []
    starts = [k for k, e in enumerate(entries) if isinstance(e.event, RunStarted | RunResumed)]
    for begin, end in zip(starts, [*starts[1:], len(entries)], strict=True):
        later = entries[end].event if end < len(entries) else None
        lost = later.lost_seconds if isinstance(later, RunResumed) else 0.0
        found.append(_process(entries[begin:end], lost))
    return found


def _process(entries: Sequence[Entry], lost_seconds: float) -> Process:
    first = entries[0].event
    if isinstance(first, RunStarted):
        workers, startup = first.settings.workers, first.startup_seconds
    elif isinstance(first, RunResumed):
        workers, startup = first.workers, first.startup_seconds
    else:
        raise TypeError(f"{first!r} begins no process")
    timed = [(startup + at, entry.event) for at, entry in _with_times(entries)]
    lanes = [list[Span]() for _ in range(workers)]
    started = [(at, event) for at, event in timed if isinstance(event, WorkerStarted)]
    ready = [at for at, _ in started]
    for number, (lane, at) in enumerate(zip(lanes, ready, strict=False)):
        # The first one is waited for; the others, where nothing else is known, start then.
        known = started[number][1].start_seconds
        others = max(0.0, at - known) if known else startup
        lane.append(Span(others if number else 0.0, at, "load"))
    for lane in lanes[len(ready) :]:  # never started: there was too little to do
        lane.append(Span(timed[-1][0], timed[-1][0], "load"))
    spans = [span for at, event in timed if (span := _span(at, event)) is not None]
    # One that took another's place.
    spans += [
        Span(at - max(event.load_seconds, event.start_seconds), at, "load")
        for at, event in started[workers:]
    ]
    for span in sorted(spans, key=lambda span: (span.begin, span.end)):
        _lay(span, lanes)
    return Process(timed[-1][0], tuple(map(tuple, lanes)), workers * lost_seconds)


def _with_times(entries: Sequence[Entry]) -> Iterator[tuple[float, Entry]]:
    """Each entry, and how long after the first one it was written."""
    at = 0.0
    for before, entry in zip((entries[0], *entries), entries, strict=False):
        at += entry.seconds_after(before)
        yield at, entry


def _lay(span: Span, lanes: Sequence[list[Span]]) -> None:
    """Into the lane that has been free for the shortest time; where none is free, into the one that
    is next, cut to that."""
    free = [lane for lane in lanes if lane[-1].end <= span.begin]
    lane = max(free, key=_last) if free else min(lanes, key=_last)
    begin = min(max(span.begin, _last(lane)), span.end)
    if begin < span.end:
        lane.append(Span(begin, span.end, span.kind, span.stage, span.parts))


def _last(lane: Sequence[Span]) -> float:
    return lane[-1].end


def _span(at: float, event: Event) -> Span | None:
    """What an event tells of, if it ends a job."""
    match event:
        case StageCompleted(result=result) | CheckpointRestored(result=result):
            return _training(at, result, result.stage)
        case TrainedBeside(result=result):
            return _training(at, result, BESIDE)
        case GenomeDerived(result=result):
            return Span(at - result.seconds, at, "derive")
        case FrontMeasured(measurement=measurement):
            return Span(at - measurement.seconds, at, "measure")
        case AttemptFailed(seconds=seconds):
            return Span(at - seconds, at, "failed")
        case _:
            return None


def _training(at: float, result: StageResult, stage: str) -> Span:
    seconds = {
        "train": result.train_seconds,
        "evaluate": result.eval_seconds,
        "checkpoint": result.checkpoint_seconds,
        "other": max(0.0, result.overhead_seconds - result.checkpoint_seconds),
    }
    total = sum(seconds.values()) or 1.0
    parts = {name: value / total for name, value in seconds.items()}
    return Span(at - result.seconds, at, "train", stage, parts)
