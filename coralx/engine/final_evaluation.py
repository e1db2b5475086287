"""The end of a search: its front, and what is measured once on the test split."""

from __future__ import annotations

from collections.abc import Collection

from coralx.config import Config
from coralx.engine.jobs import HEAD_ALONE, JobMaker
from coralx.engine.state import default_finisher, front_of
from coralx.errors import WorkerError
from coralx.execution.executor import Executor
from coralx.records.events import FrontMeasured, MeasurementFailed
from coralx.records.genomes import HEAD, Genome
from coralx.records.jobs import JobFailed, MeasureJob
from coralx.records.results import Measurement, Metrics
from coralx.search.space import space_of
from coralx.storage.history import BASELINE, FRESH, History, origin_of
from coralx.storage.ledger import Ledger


def retrained(history: History, last_stage: str) -> list[Genome]:
    """What was trained from scratch beside the search, to the end and with finite numbers."""
    origins = [
        origin_of(name)
        for (name, stage), result in history.beside.items()
        if stage == last_stage and result.divergence is None
    ]
    return [from_scratch(history.genomes[origin]) for origin in origins if origin is not None]


def has_head(history: History, last_stage: str) -> bool:
    """Whether a head was trained on the frozen base, with finite numbers."""
    trained = history.beside.get((HEAD, last_stage))
    return trained is not None and trained.divergence is None


def from_scratch(genome: Genome) -> Genome:
    """The same genes as another genome, whose training begins anew."""
    name, parents = FRESH + genome.id, (genome.id,)
    return Genome(name, genome.generation, genome.genes, parents, seed=genome.seed)


def baseline_of(config: Config, history: History) -> Genome:
    """The default recipe as it is trained beside the search."""
    seed = history.started.baseline_seed if history.started is not None else None
    return Genome(BASELINE, 0, space_of(config).common, seed=seed)


def measure(
    config: Config,
    executor: Executor,
    ledger: Ledger,
    history: History,
    jobs: JobMaker,
    *,
    beside: bool = False,
    again: Collection[str | None] = (),
) -> None:
    """Baselines and front, each once, on the test split that the search never saw; with `beside`
    also what was trained from scratch. Those named in `again` are measured once more.

    What cannot be measured is recorded, and costs the others nothing. This process does not try it
    again; a later one does.
    """
    last = jobs.timetable.last
    wanted: dict[str | None, MeasureJob] = {None: jobs.measure(None)}
    known = _finalists(config, history, last)
    if beside:
        known += [(g, history.beside[g.id, last].metrics) for g in retrained(history, last)]
    wanted |= {genome.id: jobs.measure(genome, figures) for genome, figures in known}
    done = history.measurements.keys() - set(again) | history.unmeasured.keys()
    pending = {name: job for name, job in wanted.items() if name not in done}
    try:
        for outcome in executor.run(list(pending.values())):
            pending.pop(outcome.genome)
            match outcome:
                case Measurement():
                    ledger.append(FrontMeasured(outcome))
                case JobFailed(genome=None) if not known:
                    pass  # a search without any result has nothing to hold against the base
                case JobFailed(genome=genome, reason=reason):
                    ledger.append(MeasurementFailed(genome, reason))
                case _:
                    raise TypeError(f"a measuring job brought {outcome!r}")
    except WorkerError as error:  # there is no worker left to measure the rest
        for name in pending:
            ledger.append(MeasurementFailed(name, error.message))


def _finalists(config: Config, history: History, last: str) -> list[tuple[Genome, Metrics]]:
    """The front, the default recipe and the head that was trained on the frozen base, with their
    figures on the validation split."""
    names = list(front_of(config, history, last))
    default = default_finisher(config, history, last)
    if default is not None and default != BASELINE and default not in names:
        names.append(default)
    found = [(history.genomes[name], history.results[name, last].metrics) for name in names]
    if default == BASELINE:
        found.append((baseline_of(config, history), history.beside[BASELINE, last].metrics))
    if has_head(history, last):
        found.append((HEAD_ALONE, history.beside[HEAD, last].metrics))
    return found
