"""How long the machine was in use: sums over the processes that worked on a run.

A process that is killed (kill -9, a loss of power) writes no closing event. What it did after its
last event counts up to its last sign of life (`storage.lock.Owner.beat`), left whenever a worker
says something, so that after a kill no more is lost than ten seconds and what a worker does
without a word: one evaluation, or one loading of the base. What is not counted at all is a process
that was killed before the run had its first event, and one that was killed while it resumed, if the
next one was so, too. Times are differences of monotonic clocks, each within one process; only
events of versions that did not record those are told apart by the time of day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from coralx.records.events import RunResumed, RunStarted
from coralx.records.run_facts import Facts
from coralx.storage.ledger import Entry


@dataclass(frozen=True)
class MachineUse:
    """Seconds over all resumes: of wall time, of workers, of GPUs."""

    wall_seconds: float = 0.0
    worker_seconds: float = 0.0
    gpu_seconds: float = 0.0


def gpus_in_use(facts: Facts, workers: int) -> int:
    """GPUs that so many workers occupy; 0 on a machine without."""
    return min(workers, facts.device_count) if facts.device.startswith("cuda") else 0


def _gpus_again(event: RunResumed, facts: Facts | None) -> int:
    """GPUs that a resumed run uses: those that it counted, or in runs of versions that did not
    count, those that its workers occupy on the machine where it began."""
    if event.gpus is not None:
        return event.gpus
    return gpus_in_use(facts, event.workers) if facts is not None else 0


def machine_use(entries: Sequence[Entry]) -> MachineUse:
    """Sum up the ledger's segments, each of which begins with a start or a resume."""
    wall = busy = gpu = 0.0
    facts: Facts | None = None
    workers = gpus = 0
    for before, entry in pairwise((*entries[:1], *entries)):
        match entry.event:
            case RunStarted(settings=settings, startup_seconds=seconds):
                facts, workers = entry.event.facts, settings.workers
                gpus = gpus_in_use(facts, workers)
                spans = [(seconds, workers, gpus)]
            case RunResumed(startup_seconds=seconds, workers=resumed, lost_seconds=lost):
                spans = [(lost, workers, gpus)]
                workers, gpus = resumed, _gpus_again(entry.event, facts)
                spans.append((seconds, workers, gpus))
            case _:
                spans = [(entry.seconds_after(before), workers, gpus)]
        for seconds, staff, cards in spans:
            wall += seconds
            busy += seconds * staff
            gpu += seconds * cards
    return MachineUse(round(wall, 3), round(busy, 3), round(gpu, 3))
