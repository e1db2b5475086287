"""How long the machine was in use: sums over the processes that worked on a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coralx.events import RunResumed, RunStarted
from coralx.facts import Facts
from coralx.run.ledger import Entry


@dataclass(frozen=True)
class MachineUse:
    """Seconds over all resumes: of wall time, of workers, of GPUs."""

    wall_seconds: float = 0.0
    worker_seconds: float = 0.0
    gpu_seconds: float = 0.0


def gpus_in_use(facts: Facts, workers: int) -> int:
    """GPUs that so many workers occupy; 0 on a machine without."""
    return min(workers, facts.device_count) if facts.device.startswith("cuda") else 0


def machine_use(entries: Sequence[Entry]) -> MachineUse:
    """Sum up the ledger's segments, each of which begins with a start or a resume."""
    wall = busy = gpu = 0.0
    facts: Facts | None = None
    workers, last = 0, 0.0
    for entry in entries:
        match entry.event:
            case RunStarted(facts=found, settings=settings, startup_seconds=seconds):
                facts, workers = found, settings.workers
            case RunResumed(startup_seconds=seconds, workers=resumed):
                workers = resumed
            case _:
                seconds = entry.timestamp - last
        last = entry.timestamp
        wall += seconds
        busy += seconds * workers
        gpu += seconds * (gpus_in_use(facts, workers) if facts else 0)
    return MachineUse(round(wall, 3), round(busy, 3), round(gpu, 3))
