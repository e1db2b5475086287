"""The end of a search: its front, and what is measured once on the test split."""

from __future__ import annotations

from collections.abc import Sequence

from coralx.config import Config
from coralx.errors import WorkerError
from coralx.events import BaselineTrained, FrontMeasured, GenomeFailed
from coralx.execution.executor import Executor
from coralx.records import Genome, JobFailed, Measurement, StageResult
from coralx.run.history import BASELINE, History
from coralx.run.jobs import JobMaker
from coralx.run.ledger import Ledger
from coralx.schedule.stages import Stage
from coralx.search.constraints import constraints_of, violations
from coralx.search.pareto import as_minimised, front
from coralx.search.space import default_recipe, space_of


def front_of(config: Config, history: History, last_stage: str) -> tuple[str, ...]:
    """Non-dominated genomes among those that finished the last stage, best skill first."""
    return non_dominated(config, history, history.finished(last_stage), last_stage)


def non_dominated(
    config: Config, history: History, genomes: Sequence[str], stage: str
) -> tuple[str, ...]:
    """Those of `genomes` that no other dominates by the figures of `stage`, the best on the first
    objective first. Only feasible ones if there are any, else those that miss the constraints by
    the least."""
    figures = [history.results[genome, stage].metrics for genome in genomes]
    points = as_minimised(figures, config.objectives)
    missed = violations(figures, constraints_of(config))
    firsts = dict(zip(genomes, points[:, 0], strict=True))
    return tuple(
        sorted(front(genomes, points, missed), key=lambda genome: (firsts[genome], genome))
    )


def default_finisher(config: Config, history: History, last_stage: str) -> str | None:
    """The genome that is the default recipe, if it finished the last stage from scratch."""
    recipe = default_recipe(space_of(config))
    for genome in history.finished(last_stage):
        if history.genomes[genome].genes == recipe and history.genomes[genome].inherits is None:
            return genome
    trained = history.baseline.get(last_stage)
    return BASELINE if trained is not None and trained.divergence is None else None


def wants_baseline(config: Config, history: History, last_stage: str) -> bool:
    """Whether the default recipe is still to be trained beside the search."""
    is_over = BASELINE in history.failures or any(r.divergence for r in history.baseline.values())
    missing = default_finisher(config, history, last_stage) is None
    return config.runtime.baseline and missing and not is_over


def train_baseline(
    config: Config,
    executor: Executor,
    ledger: Ledger,
    history: History,
    jobs: JobMaker,
    deadline: float | None,
) -> None:
    """Train the default recipe through every stage, beside the search, as far as time allows.

    What goes wrong with it is recorded, and costs the search nothing.
    """
    genome = Genome(BASELINE, 0, space_of(config).common)
    for stage in jobs.stages:
        if stage.name in history.baseline:
            continue
        for outcome in executor.run([jobs.train(genome, stage)], deadline):
            match outcome:
                case StageResult():
                    ledger.append(BaselineTrained(outcome))
                case JobFailed(reason=reason):
                    ledger.append(GenomeFailed(0, BASELINE, stage.name, reason))
                case _:
                    raise TypeError(f"a training job brought {outcome!r}")
        result = history.baseline.get(stage.name)
        if result is None or result.divergence is not None:
            return


def measure(
    config: Config,
    executor: Executor,
    ledger: Ledger,
    history: History,
    jobs: JobMaker,
) -> None:
    """Baselines and front, each once, on the test split that the search never saw."""
    last: Stage = jobs.stages[-1]
    wanted = list(front_of(config, history, last.name))
    default = default_finisher(config, history, last.name)
    if default is not None and default not in wanted:
        wanted.append(default)
    pending = [jobs.measure(None)] if None not in history.measurements else []
    for name in wanted:
        if name in history.measurements:
            continue
        if name == BASELINE:
            genome = Genome(BASELINE, 0, space_of(config).common)
            pending.append(jobs.measure(genome, history.baseline[last.name].metrics))
        else:
            figures = history.results[name, last.name].metrics
            pending.append(jobs.measure(history.genomes[name], figures))
    for outcome in executor.run(pending):
        match outcome:
            case Measurement():
                ledger.append(FrontMeasured(outcome))
            case JobFailed():
                raise WorkerError(f"measuring {outcome.genome or 'the base'}: {outcome.reason}")
            case _:
                raise TypeError(f"a measuring job brought {outcome!r}")
