"""What is trained beside the search and counted apart: as baselines a head on the frozen base, the
default recipe and the centre of the priors, and the front once more from scratch, where its members
started from the weights of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coralx.engine.context import RunContext
from coralx.engine.final_evaluation import baseline_of, from_scratch, has_head
from coralx.engine.state import RunState
from coralx.errors import DamagedRunError
from coralx.records.events import GenomeFailed, TrainedBeside
from coralx.records.genomes import Genome
from coralx.records.jobs import Job, JobFailed
from coralx.records.results import StageResult
from coralx.records.subjects import RECIPES, Baseline, FromScratch, subject_of
from coralx.storage.history import History
from coralx.system.files import verify_folder


def heirs(history: History, genomes: Sequence[str]) -> list[str]:
    """Those of `genomes` whose weights had been trained before they were born."""
    return [name for name in genomes if history.lineage_steps(name) > history.own_steps(name)]


def needs_training(state: RunState) -> bool:
    """Whether something is still to be trained beside the search."""
    return needs_head(state) or bool(missing_recipes(state)) or bool(unverified(state))


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
        _train([jobs.head()], context, None)
    for recipe in state.finishers().values():
        if not isinstance(recipe, Baseline) or recipe in history.measurements:
            continue
        genome = baseline_of(state, recipe)
        stage_jobs = [jobs.train(genome, stage) for stage in state.stages]
        # Only the last checkpoint is measured; where it is there, the earlier ones need not be.
        if not _is_trained(history, stage_jobs[-1]):
            for job in stage_jobs:
                _train([job], context, None)


def unverified(state: RunState) -> list[Genome]:
    """Heirs on the front, as they train from scratch, of which no figure and no failure tells yet
    how they end; best skill first."""
    if not state.config.runtime.verify_front:
        return []
    history = state.history
    return [
        from_scratch(history.genomes[name])
        for name in heirs(history, state.front())
        if not _has_ended(history, FromScratch(name))
    ]


def _has_ended(history: History, fresh: FromScratch) -> bool:
    """Whether it is known how the training from scratch ends: measured, failed or diverged."""
    if fresh in history.failures or fresh in history.measurements:
        return True
    results = [
        result for (subject, _), result in history.trained_beside.items() if subject == fresh
    ]
    return any(result.divergence is not None for result in results)


def train_baselines(context: RunContext) -> None:
    """Train the head and the recipes where they are to be, as far as the time allows.

    What goes wrong with it is recorded, and costs the search nothing.
    """
    state, jobs, deadline = context.state, context.jobs, context.allowance.deadline
    if needs_head(state):
        _train([jobs.head()], context, deadline)
    for recipe in missing_recipes(state):
        genome = baseline_of(state, recipe)
        for stage in state.stages:
            _train([jobs.train(genome, stage)], context, deadline)
            result = state.history.trained_beside.get((recipe, stage.name))
            if result is None or result.divergence is not None:
                break  # no checkpoint from which the next stage could start


def verify_front(context: RunContext) -> None:
    """Train the heirs on the front from scratch, as far as the budget allows: copies first, one
    after the other, since each stage of theirs starts from the one before; then all others at once.

    What goes wrong with it is recorded, and costs the search nothing.
    """
    history, allowance = context.history, context.allowance
    others = []
    for genome in unverified(context.state):
        if history.genomes[genome.parents[0]].continues is not None:
            _replay(genome, context)
        else:
            others.append(context.jobs.from_scratch(genome))
    pending = [job for job in others if not _is_trained(history, job)]
    affordable = allowance.affordable(pending, _spent_steps(history))
    _train(affordable, context, allowance.deadline)


def _replay(genome: Genome, context: RunContext) -> None:
    """Train a copy's lineage from scratch: stage by stage from its root's first, with the
    hyperparameters that it had."""
    history, allowance = context.history, context.allowance
    first = history.genome_at(genome.parents[0], 0).enters
    for stage in context.state.stages_in(genome.generation)[first:]:
        then = history.genome_at(genome.parents[0], stage.place)
        job = context.jobs.train(replace(genome, genes=then.genes, enters=first), stage)
        if not _is_trained(history, job) and not allowance.affords(job, _spent_steps(history)):
            return
        _train([job], context, allowance.deadline)
        result = history.trained_beside.get((subject_of(genome.id), stage.name))
        if result is None or result.divergence is not None:
            return


def _spent_steps(history: History) -> int:
    """Steps that went into the search and into verification so far."""
    verified = [
        r for (subject, _), r in history.trained_beside.items() if isinstance(subject, FromScratch)
    ]
    return history.trained_steps + sum(result.steps for result in verified)


def _train(jobs: Sequence[Job], context: RunContext, deadline: float | None) -> None:
    """Record what becomes of those jobs that have not been done before."""
    ledger = context.ledger
    pending = [job for job in jobs if not _is_trained(context.history, job)]
    generations = {job.genome.id: job.genome.generation for job in pending}
    for outcome in context.executor.run(pending, deadline):
        match outcome:
            case StageResult():
                ledger.append(TrainedBeside(outcome))
            case JobFailed(genome=str(genome), stage=stage, reason=reason):
                ledger.append(GenomeFailed(generations[genome], genome, stage, reason))
            case _:
                raise TypeError(f"a training job brought {outcome!r}")


def _is_trained(history: History, job: Job) -> bool:
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
