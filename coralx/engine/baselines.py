"""What is trained beside the search and counted apart as a baseline: a head on the frozen base, the
default recipe and the centre of the priors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from coralx.engine.beside import IsTrained, is_trained, train_beside
from coralx.engine.context import RunContext
from coralx.engine.final_evaluation import baseline_of, has_head
from coralx.engine.state import RunState
from coralx.execution.executor import AnyJob
from coralx.records.jobs import Job
from coralx.records.subjects import RECIPES, Baseline


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
        train_beside([jobs.head()], context)
    for recipe in state.finishers().values():
        if not isinstance(recipe, Baseline) or recipe in history.measurements:
            continue
        genome = baseline_of(state, recipe)
        stage_jobs = [jobs.train(genome, stage) for stage in state.stages]
        # Only the last checkpoint is measured; where it is there, the earlier ones need not be.
        if not is_trained(history, stage_jobs[-1]):
            for job in stage_jobs:
                train_beside([job], context)


def is_sure_to_be_missing(state: RunState, recipe: Baseline) -> bool:
    """Whether a recipe that has not finished will not finish in the search: who bore it has ended,
    and what was trained once is never born again."""
    history = state.history
    genes = state.recipe_of(recipe)
    if genes is None or not state.space.contains(genes):
        return True
    bearers = [g for g in history.genomes.values() if g.genes == genes and not g.donors]
    is_last = len(history.generations) == state.config.evolution.generations
    return bool(bearers or is_last) and all(history.has_ended(g.id) for g in bearers)


def baseline_jobs(
    context: RunContext, recipes: Sequence[Baseline], is_trained: IsTrained
) -> Iterator[Job]:
    """What is to be trained next of each baseline, of recipes only those named: all of these jobs
    can be done at the same time."""
    state, jobs = context.state, context.jobs
    if needs_head(state):
        yield jobs.head()
    for recipe in recipes:
        genome = baseline_of(state, recipe)
        stage_jobs = (jobs.train(genome, stage) for stage in state.stages)
        # Each stage starts from the checkpoint of the one before.
        yield from islice((job for job in stage_jobs if not is_trained(job)), 1)


def idle_jobs(context: RunContext, is_trained: IsTrained) -> Iterator[AnyJob]:
    """What may be done for the final comparison while the search goes on, since it is needed
    however that ends: by workers that would wait otherwise. Of figures on the test split it is
    those of the untuned base alone, so the search stays blind."""
    state, history = context.state, context.history
    if not context.allowance.is_unlimited:
        return  # then the search comes first, and what is left may not suffice for anything else
    if Baseline.UNTUNED not in history.measurements:
        yield context.jobs.measure(None)
    sure = [recipe for recipe in missing_recipes(state) if is_sure_to_be_missing(state, recipe)]
    yield from baseline_jobs(context, sure, is_trained)
