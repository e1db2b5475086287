"""Jobs that a worker does together: which ones, and what is left of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from coralx.config.schema import Config
from coralx.execution.executor import AnyJob, JobOutcome, genome_and_stage
from coralx.records.genomes import ALL_LAYERS
from coralx.records.jobs import Job
from coralx.records.results import StageResult
from coralx.records.run_facts import Settings


@dataclass(frozen=True)
class Pack:
    """Jobs of several genomes that are trained together."""

    jobs: tuple[Job, ...]


def wanted_pack(config: Config, backend: str, recorded: Settings | None) -> int | None:
    """How many genomes the first worker is to find out about, whether they can be trained together;
    None: as many as pay; 1: there is nothing to find out."""
    if recorded is not None:
        return recorded.pack
    if backend != "peft":
        return 1
    pack = config.runtime.pack
    if pack != "auto":
        return pack
    # On a GPU that counts what the model holds, of which the other genomes' adapters are a part.
    return 1 if "memory" in config.named_metrics else None


def next_work(
    waiting: deque[AnyJob], most: int, workers: int, is_first: Callable[[AnyJob], bool]
) -> AnyJob | Pack:
    """Take the next job, with others that can be trained together with it: `most` in all, and no
    more than leave as many for each of the `workers` that are free. What has failed before, as
    `is_first` tells, is alone from then on."""
    job = waiting.popleft()
    if most == 1 or not isinstance(job, Job) or not (is_first(job) and _is_packable(job)):
        return job
    like = [
        other
        for other in waiting
        if isinstance(other, Job) and is_first(other) and _can_join(job, other)
    ]
    others = like[: min(most, math.ceil((1 + len(like)) / workers)) - 1]
    for other in others:
        waiting.remove(other)
    return Pack((job, *others)) if others else job


def _is_packable(job: Job) -> bool:
    """Whether it can be trained together with others at all. Where memory is known to be short,
    that would need more of it; and what lies below the layers that a genome adapts is computed
    apart."""
    genes = job.genome.genes
    is_plain = genes.adapts_base and not genes.use_dora and genes.layers == ALL_LAYERS
    return is_plain and job.micro_batch is None


def _can_join(job: Job, other: Job) -> bool:
    """Whether both read the same rows at the same steps."""
    return _is_packable(other) and other.genome.id != job.genome.id and _rows(job) == _rows(other)


def _rows(job: Job) -> tuple[object, ...]:
    """What decides the rows of each step, see `Batches.rows`."""
    batch_size = job.genome.genes.batch_size
    return job.stage, batch_size, job.data_fraction, job.first_step, job.last_step


def jobs_of(work: AnyJob | Pack | None) -> tuple[AnyJob, ...]:
    """The jobs that a worker has been given and that have no outcome yet."""
    if isinstance(work, Pack):
        return work.jobs
    return () if work is None else (work,)


def left_of(work: AnyJob | Pack | None, outcome: JobOutcome) -> Pack | None:
    """What a worker still has to do after an outcome."""
    if not isinstance(work, Pack) or not isinstance(outcome, StageResult):
        return None
    done = outcome.genome, outcome.stage
    left = tuple(job for job in work.jobs if genome_and_stage(job) != done)
    return Pack(left) if left else None
