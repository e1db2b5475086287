"""What is trained beside the search and counted apart: a head on the frozen base and the default
recipe as baselines, and the front once more from scratch, where its members started from the
weights of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coralx.config import Config
from coralx.engine.budget import Allowance
from coralx.engine.final_evaluation import baseline_of, from_scratch, has_head
from coralx.engine.jobs import JobMaker
from coralx.engine.state import default_finisher, front_of
from coralx.errors import DamagedRunError
from coralx.execution.executor import Executor
from coralx.records.events import GenomeFailed, TrainedBeside
from coralx.records.genomes import HEAD, Genome
from coralx.records.jobs import Job, JobFailed
from coralx.records.results import StageResult
from coralx.storage.history import BASELINE, History, origin_of
from coralx.storage.ledger import Ledger
from coralx.system.files import verify_folder


def heirs(history: History, genomes: Sequence[str]) -> list[str]:
    """Those of `genomes` whose weights had been trained before they were born."""
    return [name for name in genomes if history.lineage_steps(name) > history.own_steps(name)]


def wants_more(config: Config, history: History, last_stage: str) -> bool:
    """Whether something is still to be trained beside the search."""
    return (
        wants_head(config, history, last_stage)
        or wants_baseline(config, history, last_stage)
        or bool(unverified(config, history, last_stage))
    )


def wants_head(config: Config, history: History, last_stage: str) -> bool:
    """Whether a head is still to be trained on the frozen base, to hold the front against."""
    is_over = HEAD in history.failures or (HEAD, last_stage) in history.beside
    trains = history.started is not None and history.started.facts.trains_head
    return trains and not is_over and bool(front_of(config, history, last_stage))


def wants_baseline(config: Config, history: History, last_stage: str) -> bool:
    """Whether the default recipe is still to be trained beside the search."""
    is_over = BASELINE in history.failures or any(r.divergence for r in history.baseline.values())
    missing = default_finisher(config, history, last_stage) is None
    return config.runtime.baseline and missing and not is_over


def restore_baselines(
    config: Config, executor: Executor, ledger: Ledger, history: History, jobs: JobMaker
) -> None:
    """Train the checkpoint again of a baseline that is to be measured, where it was lost."""
    last = jobs.timetable.last
    if has_head(history, last) and HEAD not in history.measurements:
        _train([jobs.head()], executor, ledger, history, None)
    is_finished = default_finisher(config, history, last) == BASELINE
    if not is_finished or BASELINE in history.measurements:
        return
    recipe = baseline_of(config, history)
    wanted = [jobs.train(recipe, stage) for stage in jobs.stages]
    if not _is_trained(history, wanted[-1]):
        for job in wanted:
            _train([job], executor, ledger, history, None)


def unverified(config: Config, history: History, last_stage: str) -> list[Genome]:
    """Heirs on the front, as they train from scratch, of which no figure and no failure tells yet
    how they end; best skill first."""
    if not config.runtime.verify_front:
        return []
    front = front_of(config, history, last_stage)
    fresh = [from_scratch(history.genomes[name]) for name in heirs(history, front)]
    return [genome for genome in fresh if not _is_settled(history, genome.id)]


def _is_settled(history: History, name: str) -> bool:
    results = [result for (genome, _), result in history.beside.items() if genome == name]
    has_diverged = any(result.divergence is not None for result in results)
    return name in history.failures or has_diverged or name in history.measurements


def train_beside(
    config: Config,
    executor: Executor,
    ledger: Ledger,
    history: History,
    jobs: JobMaker,
    allowance: Allowance,
) -> None:
    """Train what is wanted beside the search, as far as the budget allows.

    What goes wrong with it is recorded, and costs the search nothing.
    """
    last = jobs.timetable.last
    shared = (executor, ledger, history)
    if wants_head(config, history, last):
        _train([jobs.head()], *shared, allowance.deadline)
    if wants_baseline(config, history, last):
        recipe = baseline_of(config, history)
        for stage in jobs.stages:
            _train([jobs.train(recipe, stage)], *shared, allowance.deadline)
            result = history.beside.get((BASELINE, stage.name))
            if result is None or result.divergence is not None:
                break
    heirs = unverified(config, history, last)
    for genome in heirs:
        if history.genomes[genome.parents[0]].continues is not None:
            _replay(genome, *shared, jobs, allowance)
    wanted = [jobs.from_scratch(g) for g in heirs if not history.genomes[g.parents[0]].continues]
    wanted = [job for job in wanted if not _is_trained(history, job)]
    affordable = allowance.affordable(wanted, history.trained_steps + _verified_steps(history))
    _train(affordable, *shared, allowance.deadline)


def _replay(
    genome: Genome,
    executor: Executor,
    ledger: Ledger,
    history: History,
    jobs: JobMaker,
    allowance: Allowance,
) -> None:
    """Train a copy's lineage from scratch: stage by stage from its root's first, with the
    hyperparameters that it had."""
    first = history.genome_at(genome.parents[0], 0).enters
    for stage in jobs.timetable.of(genome.generation)[first:]:
        then = history.genome_at(genome.parents[0], stage.place)
        job = jobs.train(replace(genome, genes=then.genes, enters=first), stage)
        spent = history.trained_steps + _verified_steps(history)
        if not _is_trained(history, job) and not allowance.affords(job, spent):
            return
        _train([job], executor, ledger, history, allowance.deadline)
        result = history.beside.get((genome.id, stage.name))
        if result is None or result.divergence is not None:
            return


def _verified_steps(history: History) -> int:
    """Steps that went into verification so far."""
    return sum(r.steps for (name, _), r in history.beside.items() if origin_of(name))


def _train(
    jobs: Sequence[Job],
    executor: Executor,
    ledger: Ledger,
    history: History,
    deadline: float | None,
) -> None:
    """Record what becomes of those jobs that have not been done before."""
    pending = [job for job in jobs if not _is_trained(history, job)]
    generations = {job.genome.id: job.genome.generation for job in pending}
    for outcome in executor.run(pending, deadline):
        match outcome:
            case StageResult():
                ledger.append(TrainedBeside(outcome))
            case JobFailed(genome=str(genome), stage=stage, reason=reason):
                ledger.append(GenomeFailed(generations[genome], genome, stage, reason))
            case _:
                raise TypeError(f"a training job brought {outcome!r}")


def _is_trained(history: History, job: Job) -> bool:
    """Whether the job has its result, and the checkpoint that came of it is whole."""
    result = history.beside.get((job.genome.id, job.stage))
    if result is None or result.checkpoint is None or job.checkpoint is None:
        return result is not None
    try:
        verify_folder(Path(job.checkpoint))
    except DamagedRunError:
        return False
    return True
