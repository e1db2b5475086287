"""The front verified: what began with the weights of others is made once more from scratch, and
scored beside it. What is derived is derived again in the same way, of sources that were trained
from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coralx.engine.baselines import is_trained, train_beside
from coralx.engine.context import RunContext
from coralx.engine.final_evaluation import from_scratch
from coralx.engine.state import RunState
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob
from coralx.records.subjects import FromScratch, subject_of
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


def verify_front(context: RunContext) -> None:
    """Make the heirs on the front from scratch, as far as the budget allows: copies first, one
    after the other, since each stage of theirs starts from the one before; then all others at once;
    then what is derived from them.

    What goes wrong with it is recorded, and costs the search nothing.
    """
    history = context.history
    needed = dict.fromkeys(
        each for name in unverified(context.state) for each in makings(history, name)
    )
    genomes = [history.genomes[name] for name in needed if loss_of(history, name) is None]
    _train([genome for genome in genomes if genome.derived is None], context)
    _derive([genome for genome in genomes if genome.derived is not None], context)


def _train(genomes: Sequence[Genome], context: RunContext) -> None:
    history, allowance = context.history, context.allowance
    for genome in genomes:
        if genome.continues is not None:
            _replay(from_scratch(genome), context)
    others = [
        context.jobs.from_scratch(from_scratch(genome))
        for genome in genomes
        if genome.continues is None
    ]
    pending = [job for job in others if not is_trained(history, job)]
    affordable = allowance.affordable(pending, _spent_steps(history))
    train_beside(affordable, context, allowance.deadline)


def _replay(genome: Genome, context: RunContext) -> None:
    """Train a copy's lineage from scratch: stage by stage from its root's first, with the
    hyperparameters that it had."""
    history, allowance = context.history, context.allowance
    first = history.genome_at(genome.parents[0], 0).enters
    for stage in context.state.stages_in(genome.generation)[first:]:
        then = history.genome_at(genome.parents[0], stage.place)
        job = context.jobs.train(replace(genome, genes=then.genes, enters=first), stage)
        if not is_trained(history, job) and not allowance.affords(job, _spent_steps(history)):
            return
        train_beside([job], context, allowance.deadline)
        result = history.trained_beside.get((subject_of(genome.id), stage.name))
        if result is None or result.divergence is not None:
            return


def _derive(genomes: Sequence[Genome], context: RunContext) -> None:
    """Derive what can be derived of what is there by now, each after its sources."""
    waiting = list(genomes)
    while ready := [genome for genome in waiting if _has_sources(genome, context)]:
        jobs = [_again(genome, context) for genome in ready]
        train_beside(jobs, context, context.allowance.deadline)
        waiting = [genome for genome in waiting if genome not in ready]


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
