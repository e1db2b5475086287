"""Where a run's time went: the `profile` of `report.json`, from the ledger alone.

Every second of every worker is told of once, so that all figures add up to the wall clock times the
workers. A worker that has nothing to do waits: for the first worker to be ready (`start`), for the
last genomes of a stage (`stage`), for derivations that others carry out (`derivation`), or for what
is measured and trained to compare the search with (`end`). While none of them has anything to do,
they all wait for the driver.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coralx.report.matrix_products import trained_flops
from coralx.report.work_spans import BESIDE, Process, Span, processes
from coralx.storage.history import History
from coralx.storage.ledger import Entry

Seconds = defaultdict[str, float]

ACTIVITIES = (
    "train",
    "evaluate",
    "checkpoint",
    "other",
    "derive",
    "measure",
    "failed",
    "load",
    "wait",
    "driver",
    "lost",
)
"""What a worker's time goes into. `other` is what a job takes beside its parts, `failed` attempts
without a result, `lost` what a killed process did after its last event."""

STAGE_ACTIVITIES = ("train", "evaluate", "checkpoint", "other")

REASONS = ("start", "stage", "derivation", "end")
"""What is waited for."""


def profile_of(history: History, entries: Sequence[Entry]) -> dict[str, Any]:
    """Seconds of workers: in all, by worker, by stage, and of waiting by reason. In a simulation
    all is the driver's, as nothing is trained."""
    is_simulated = history.started is None or history.started.facts.device == "none"
    found = processes(entries)
    by_worker: list[Seconds] = []
    by_stage: dict[str, Seconds] = {}
    reasons = Seconds(float)
    for process in found:
        by_worker += [Seconds(float) for _ in range(len(process.lanes) - len(by_worker))]
        spans = _without_jobs(process) if is_simulated else process
        for number, span in _all_spans(spans):
            _add(span, by_worker[number], by_stage)
        for number, reason, seconds in _waits(spans):
            by_worker[number]["driver" if reason == "driver" else "wait"] += seconds
            if reason != "driver":
                reasons[reason] += seconds
        for lane in by_worker[: len(process.lanes)]:
            lane["lost"] += process.lost_seconds / len(process.lanes)
    total = {name: sum(worker[name] for worker in by_worker) for name in ACTIVITIES}
    return {
        "worker_seconds": round(sum(total.values()), 3),
        "seconds": _rounded(total, ACTIVITIES),
        "waiting_for": _rounded(reasons, REASONS),
        "stages": [
            {
                "stage": stage,
                "is_searched": stage != BESIDE,
                **_rounded(seconds, STAGE_ACTIVITIES),
            }
            for stage, seconds in by_stage.items()
        ],
        "workers": [_rounded(seconds, ACTIVITIES) for seconds in by_worker],
        "trained_flops": trained_flops(history),
    }


def _without_jobs(process: Process) -> Process:
    """A simulation's jobs take no time of their own: their seconds are made up."""
    lanes = tuple(lane[:1] for lane in process.lanes)
    return Process(process.seconds, lanes, process.lost_seconds)


def _all_spans(process: Process) -> Iterator[tuple[int, Span]]:
    for number, lane in enumerate(process.lanes):
        for span in lane:
            yield number, span


def _add(span: Span, worker: Seconds, by_stage: dict[str, Seconds]) -> None:
    if span.stage is None:
        worker[span.kind] += span.seconds
        return
    stage = by_stage.setdefault(span.stage, Seconds(float))
    for name, share in span.parts.items():
        worker[name] += share * span.seconds
        stage[name] += share * span.seconds


def _waits(process: Process) -> Iterator[tuple[int, str, float]]:
    """Worker, reason and length of all that lies between what they did."""
    changes = [(0.0, number, "start") for number in range(len(process.lanes))]
    for number, span in _all_spans(process):
        state = "beside" if span.stage == BESIDE else span.kind
        changes += [(span.begin, number, state), (span.end, number, "idle")]
    states = ["start"] * len(process.lanes)
    before = 0.0
    # At one moment what ends comes before what begins.
    order = {"start": 0, "idle": 1}
    changes.sort(key=lambda change: (change[0], order.get(change[2], 2)))
    for at, lane, state in [*changes, (process.seconds, 0, "idle")]:
        if at > before:
            for number, current in enumerate(states):
                if current in ("idle", "start"):
                    yield number, _reason(current, states), at - before
            before = at
        states[lane] = state


def _reason(state: str, states: Sequence[str]) -> str:
    """Why a worker waits while all are in these states."""
    if state == "start":
        return "start"
    for kind, reason in (("train", "stage"), ("failed", "stage"), ("derive", "derivation")):
        if kind in states:
            return reason
    return "end" if "measure" in states or "beside" in states else "driver"


def _rounded(seconds: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: round(seconds.get(name, 0.0), 3) for name in names}
