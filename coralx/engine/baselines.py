"""What is trained beside the search and counted apart as a baseline: a head on the frozen base, the
default recipe and the centre of the priors."""

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
from coralx.records.subjects import RECIPES, Baseline, subject_of
from coralx.storage.history import History
from coralx.system.files import verify_folder


def needs_training(state: RunState) -> bool:
    """Whether a baseline is still to be trained beside the search."""
    return needs_head(state) or bool(missing_recipes(state))


def needs_head(state: RunState) -> bool:
    """Whether a head is still to be trained on the frozen base, to hold the front against."""
    history = state.history
    head = Baseline.TRAINED_HEAD
    is_over = head in history.failures or (head, state.last_stage) in history.trained_beside
    trains = history.started is not None and history.started.facts.trains_head
    return trains and not is_over and bool(state.front())


def missing_recipes(state: RunState) -> list[Baseline]:
    """The recipes that are still to be trained beside the search."""
    if not state.config.runtime.baseline:
        return []
    history, finished = state.history, state.finishers()
    return [
        recipe
        for recipe in RECIPES
        if recipe not in finished
        and state.recipe_of(recipe) is not None
        and recipe not in history.failures
        and not any(result.divergence for result in history.beside(recipe))
    ]


def restore_baselines(context: RunContext) -> None:
    """Train the checkpoint again of a baseline that is to be measured, where it was lost."""
    state, history, jobs = context.state, context.history, context.jobs
    # No deadline: what is trained here was paid for before, and its measurement is still due.
    if has_head(state) and Baseline.TRAINED_HEAD not in history.measurements:
        train_beside([jobs.head()], context, None)
    for recipe in state.finishers().values():
        if not isinstance(recipe, Baseline) or recipe in history.measurements:
            continue
        genome = baseline_of(state, recipe)
        stage_jobs = [jobs.train(genome, stage) for stage in state.stages]
        # Only the last checkpoint is measured; where it is there, the earlier ones need not be.
        if not is_trained(history, stage_jobs[-1]):
            for job in stage_jobs:
                train_beside([job], context, None)


def train_baselines(context: RunContext) -> None:
    """Train the head and the recipes where they are to be, as far as the time allows.

    What goes wrong with it is recorded, and costs the search nothing.
    """
    state, jobs, deadline = context.state, context.jobs, context.allowance.deadline
    if needs_head(state):
        train_beside([jobs.head()], context, deadline)
    for recipe in missing_recipes(state):
        genome = baseline_of(state, recipe)
        for stage in state.stages:
            train_beside([jobs.train(genome, stage)], context, deadline)
            result = state.history.trained_beside.get((recipe, stage.name))
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
