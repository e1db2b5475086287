"""What is trained beside the search and counted apart: as baselines a head on the frozen base and
the default recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coralx.engine.context import RunContext
from coralx.engine.final_evaluation import baseline_of, has_head
from coralx.engine.state import RunState
from coralx.errors import DamagedRunError
from coralx.records.events import GenomeFailed, TrainedBeside
from coralx.records.jobs import DeriveJob, Job, JobFailed
from coralx.records.results import Derived, StageResult
from coralx.records.subjects import Baseline, subject_of
from coralx.storage.history import History
from coralx.system.files import verify_folder


def needs_training(state: RunState) -> bool:
    """Whether a baseline is still to be trained beside the search."""
    return needs_head(state) or needs_baseline(state)


def needs_head(state: RunState) -> bool:
    """Whether a head is still to be trained on the frozen base, to hold the front against."""
    history = state.history
    head = Baseline.TRAINED_HEAD
    is_over = head in history.failures or (head, state.last_stage) in history.trained_beside
    trains = history.started is not None and history.started.facts.trains_head
    return trains and not is_over and bool(state.front())


def needs_baseline(state: RunState) -> bool:
    """Whether the default recipe is still to be trained beside the search."""
    history = state.history
    has_failed = Baseline.DEFAULT_RECIPE in history.failures
    is_over = has_failed or any(result.divergence for result in history.baseline.values())
    is_missing = state.default_finisher() is None
    return state.config.runtime.baseline and is_missing and not is_over


def restore_baselines(context: RunContext) -> None:
    """Train the checkpoint again of a baseline that is to be measured, where it was lost."""
    state, history, jobs = context.state, context.history, context.jobs
    # No deadline: what is trained here was paid for before, and its measurement is still due.
    if has_head(state) and Baseline.TRAINED_HEAD not in history.measurements:
        train_beside([jobs.head()], context, None)
    default = state.default_finisher()
    if default is not Baseline.DEFAULT_RECIPE or default in history.measurements:
        return
    recipe = baseline_of(state)
    stage_jobs = [jobs.train(recipe, stage) for stage in state.stages]
    # Only the last checkpoint is measured; where it is there, the earlier ones need not be.
    if not is_trained(history, stage_jobs[-1]):
        for job in stage_jobs:
            train_beside([job], context, None)


def train_baselines(context: RunContext) -> None:
    """Train the head and the default recipe where they are to be, as far as the time allows.

    What goes wrong with it is recorded, and costs the search nothing.
    """
    state, jobs, deadline = context.state, context.jobs, context.allowance.deadline
    if needs_head(state):
        train_beside([jobs.head()], context, deadline)
    if needs_baseline(state):
        recipe = baseline_of(state)
        for stage in state.stages:
            train_beside([jobs.train(recipe, stage)], context, deadline)
            result = state.history.trained_beside.get((Baseline.DEFAULT_RECIPE, stage.name))
            if result is None or result.divergence is not None:
                break  # no checkpoint from which the next stage could start


def train_beside(
    jobs: Sequence[Job | DeriveJob], context: RunContext, deadline: float | None
) -> None:
    """Record what becomes of those jobs that have not been done before."""
    ledger = context.ledger
    pending = [job for job in jobs if not is_trained(context.history, job)]
    generations = {job.genome.id: job.genome.generation for job in pending}
    for outcome in context.executor.run(pending, deadline):
        match outcome:
            case StageResult():
                ledger.append(TrainedBeside(outcome))
            case Derived(result=result):
                ledger.append(TrainedBeside(result))
            case JobFailed(genome=str(genome), stage=stage, reason=reason):
                ledger.append(GenomeFailed(generations[genome], genome, stage, reason))
            case _:
                raise TypeError(f"a job beside the search brought {outcome!r}")


def is_trained(history: History, job: Job | DeriveJob) -> bool:
    """Whether the job has its result, and the checkpoint that came of it is whole."""
    result = history.trained_beside.get((subject_of(job.genome.id), job.stage))
    # What diverged has left no checkpoint, and a plan without a run folder asks for none.
    if result is None or result.checkpoint is None or job.checkpoint is None:
        return result is not None
    try:
        verify_folder(Path(job.checkpoint))
    except DamagedRunError:
        return False
    return True
