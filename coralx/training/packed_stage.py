"""Jobs of several genomes trained as one pack: steps together, the rest one after another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from coralx.backends.protocol import Beat, Paused, Report
from coralx.records.genomes import Genome, Shape
from coralx.records.jobs import Job
from coralx.records.results import StageResult
from coralx.training import adapters
from coralx.training.packed_loop import Member, PackedLoop
from coralx.training.stage_training import StageTraining, UnderWay

Adapter = Callable[[Genome, Shape], AbstractContextManager[str]]
"""In its context, a fresh adapter of the genome's is in the model, and active at first."""


def train_together(
    training: StageTraining, jobs: Sequence[Job], adapter: Adapter, report: Report, beat: Beat
) -> Iterator[StageResult]:
    """Train the jobs as one pack; the results as they come. Each has its own seconds of loading,
    evaluation and saving, and of each step its share: they add up to those of the pack.

    Where the beat raises Paused, or evaluation fails, all whose result is not there yet leave a
    partial checkpoint, from which they may go on together or alone.
    """
    with ExitStack() as in_model:
        left: deque[tuple[UnderWay, float]] = deque()
        for job in jobs:
            began = time.monotonic()
            in_model.enter_context(adapter(job.genome, job.trained_shape))
            left.append((training.begin(job, beat), time.monotonic() - began))
        under_way = [stage for stage, _ in left]
        try:
            loop = PackedLoop(training.model, [_member(stage) for stage in under_way])
            loop.run(report, beat, 60.0 * training.config.runtime.checkpoint_minutes)
        except Paused:
            _keep(training, under_way)
            raise
        while left:
            stage, loading = left[0]
            training.model.set_adapter(adapters.name_of(stage.job.genome))
            began = time.monotonic() - loading - stage.seconds
            try:
                result = training.complete(stage, beat, began)
            except Exception:
                _keep(training, [stage for stage, _ in left])
                raise
            left.popleft()
            yield result


def _member(stage: UnderWay) -> Member:
    name = adapters.name_of(stage.job.genome)
    return Member(stage.job, name, stage.trainer, stage.trace, stage.keep)


def _keep(training: StageTraining, stages: Sequence[UnderWay]) -> None:
    for stage in stages:
        training.model.set_adapter(adapters.name_of(stage.job.genome))
        stage.keep_if_new()
