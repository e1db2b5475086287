"""The front verified: what began with the weights of others is made once more from scratch, and
scored beside it. What is derived is derived again in the same way, of sources that were trained
from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from coralx.engine.beside import IsTrained
from coralx.engine.context import RunContext
from coralx.engine.final_evaluation import from_scratch
from coralx.engine.state import RunState
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob, Job
from coralx.records.subjects import FromScratch
from coralx.storage.derivation_tree import makings, roots
from coralx.storage.history import History

Loss = tuple[str, str]
"""How something ended that has no figures, "failed" or "diverged", and why."""


def heirs(history: History, genomes: Sequence[str]) -> list[str]:
    """Those of `genomes` whose weights, or those that they are derived from, had been trained
    before the training of their own."""
    return [
        name
        for name in genomes
        if any(history.lineage_steps(r) > history.own_steps(r) for r in roots(history, name))
    ]


def unverified(state: RunState) -> list[str]:
    """Heirs on the front of which no figure and no failure tells yet how they end from scratch;
    best skill first."""
    if not state.config.runtime.verify_front:
        return []
    history = state.history
    return [
        name
        for name in heirs(history, state.front())
        if FromScratch(name) not in history.measurements and loss_of(history, name) is None
    ]


def loss_of(history: History, name: str) -> Loss | None:
    """Why there will be no figures of a genome from scratch: it, or what it is derived from, failed
    or diverged. None where nothing speaks against it yet."""
    for each in makings(history, name):
        fresh = FromScratch(each)
        where = "" if each == name else f"{each} from scratch "
        if fresh in history.failures:
            return "failed", where + history.failures[fresh].reason
        for (subject, _), result in history.trained_beside.items():
            if subject == fresh and result.divergence is not None:
                reason = f"{result.divergence.reason} at step {result.divergence.step}"
                return "diverged", where + reason
    return None


def fresh_steps(history: History, name: str) -> int:
    """Steps that were trained from scratch for a genome, or for those that it is derived from."""
    subjects = {FromScratch(root) for root in roots(history, name)}
    return sum(r.steps for (subject, _), r in history.trained_beside.items() if subject in subjects)


def verification_jobs(context: RunContext, is_trained: IsTrained) -> Iterator[Job | DeriveJob]:
    """What can be made now of what the heirs on the front need from scratch, as far as the budget
    allows: of copies the next stage each, since it starts from the one before; all others; and
    what is derived of those that are there by now."""
    history, allowance = context.history, context.allowance
    needed = dict.fromkeys(
        each for name in unverified(context.state) for each in makings(history, name)
    )
    genomes = [history.genomes[name] for name in needed if loss_of(history, name) is None]
    trained = [genome for genome in genomes if genome.derived is None]
    copies = [
        job
        for genome in trained
        if genome.continues is not None
        for job in islice((j for j in _replay(genome, context) if not is_trained(j)), 1)
    ]
    others = [
        context.jobs.from_scratch(from_scratch(genome))
        for genome in trained
        if genome.continues is None
    ]
    pending = [*copies, *(job for job in others if not is_trained(job))]
    if copies and allowance.counts_steps:
        pending = copies[:1]  # as if one came after the other, whose order decides what is left
    yield from allowance.affordable(pending, _spent_steps(history))
    for genome in genomes:
        if genome.derived is not None and _has_sources(genome, context):
            job = _again(genome, context)
            if not is_trained(job):
                yield job


def _replay(genome: Genome, context: RunContext) -> Iterator[Job]:
    """A copy's lineage from scratch: stage by stage from its root's first, with the hyperparameters
    that it had."""
    history, fresh = context.history, from_scratch(genome)
    first = history.genome_at(genome.id, 0).enters
    for stage in context.state.stages_in(genome.generation)[first:]:
        then = history.genome_at(genome.id, stage.place)
        yield context.jobs.train(replace(fresh, genes=then.genes, enters=first), stage)


def _has_sources(genome: Genome, context: RunContext) -> bool:
    """Whether all that it is derived from was made from scratch."""
    history, last = context.history, context.state.last_stage
    sources = genome.derived.sources if genome.derived is not None else ()
    return all(
        (FromScratch(source), last) in history.trained_beside and loss_of(history, source) is None
        for source in sources
    )


def _again(genome: Genome, context: RunContext) -> DeriveJob:
    steps = fresh_steps(context.history, genome.id)
    return context.jobs.derive(from_scratch(genome), steps)


def _spent_steps(history: History) -> int:
    """Steps that went into the search and into verification so far."""
    verified = [
        r for (subject, _), r in history.trained_beside.items() if isinstance(subject, FromScratch)
    ]
    return history.trained_steps + sum(result.steps for result in verified)
