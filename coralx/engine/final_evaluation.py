"""The end of a search: its front, and what is measured once on the test split."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from coralx.engine.context import RunContext
from coralx.engine.jobs import HEAD_ALONE
from coralx.engine.state import RunState
from coralx.errors import WorkerError
from coralx.records.events import FrontMeasured, MeasurementFailed
from coralx.records.genomes import Genome
from coralx.records.jobs import JobFailed, MeasureJob
from coralx.records.results import Measurement, Metrics
from coralx.records.subjects import (
    BASELINE,
    FRESH,
    Baseline,
    FromScratch,
    Searched,
    Subject,
    id_of,
    subject_of,
)
from coralx.search.space import space_of


def retrained_front(state: RunState) -> list[Genome]:
    """What was made from scratch beside the search, to the end and with finite numbers; not what
    members of the front are derived from, unless it is on the front itself."""
    history, front = state.history, state.front()
    return [
        from_scratch(history.genomes[subject.genome])
        for (subject, stage), result in history.trained_beside.items()
        if isinstance(subject, FromScratch)
        and subject.genome in front
        and stage == state.last_stage
        and result.divergence is None
    ]


def has_head(state: RunState) -> bool:
    """Whether a head was trained on the frozen base, with finite numbers."""
    trained = state.history.trained_beside.get((Baseline.TRAINED_HEAD, state.last_stage))
    return trained is not None and trained.divergence is None


def from_scratch(genome: Genome) -> Genome:
    """The same genes as another genome, whose training begins anew; or the same derivation, of
    sources from scratch."""
    name, parents, derived = FRESH + genome.id, (genome.id,), genome.derived
    if derived is not None:
        sources = tuple(FRESH + source for source in derived.sources)
        derived = replace(derived, sources=sources)
    return Genome(name, genome.generation, genome.genes, parents, derived=derived, seed=genome.seed)


def baseline_of(state: RunState) -> Genome:
    """The default recipe as it is trained beside the search."""
    started = state.history.started
    seed = started.baseline_seed if started is not None else None
    return Genome(BASELINE, 0, space_of(state.config).common, seed=seed)


def measure(
    context: RunContext, *, retrained: bool = False, again: Collection[Subject] = ()
) -> None:
    """Baselines and front, each once, on the test split that the search never saw; with `retrained`
    also what was trained from scratch. Those named in `again` are measured once more.

    What cannot be measured is recorded, and costs the others nothing. This process does not try it
    again; a later one does.
    """
    state, history, ledger = context.state, context.history, context.ledger
    jobs, last = context.jobs, state.last_stage
    measure_jobs: dict[Subject, MeasureJob] = {Baseline.UNTUNED: jobs.measure(None)}
    finalists = _finalists(state)
    if retrained:
        finalists += [
            (g, history.trained_beside[subject_of(g.id), last].metrics)
            for g in retrained_front(state)
        ]
    measure_jobs |= {subject_of(g.id): jobs.measure(g, figures) for g, figures in finalists}
    done = history.measurements.keys() - set(again) | history.unmeasured.keys()
    pending = {subject: job for subject, job in measure_jobs.items() if subject not in done}
    try:
        for outcome in context.executor.run(list(pending.values())):
            match outcome:
                case Measurement():
                    ledger.append(FrontMeasured(outcome))
                case JobFailed(genome=None) if not finalists:
                    pass  # a search without any result has nothing to hold against the base
                case JobFailed(genome=genome, reason=reason):
                    ledger.append(MeasurementFailed(genome, reason))
                case _:
                    raise TypeError(f"a measuring job brought {outcome!r}")
            pending.pop(subject_of(outcome.genome))
    except WorkerError as error:
        # There is no worker left to measure the rest; what was trained is not lost for that.
        for subject in pending:
            ledger.append(MeasurementFailed(id_of(subject), error.message))


def _finalists(state: RunState) -> list[tuple[Genome, Metrics]]:
    """The front, the default recipe and the head that was trained on the frozen base, with their
    figures on the validation split."""
    history, last = state.history, state.last_stage
    names = list(state.front())
    default = state.default_finisher()
    if isinstance(default, Searched) and default.genome not in names:
        names.append(default.genome)
    finalists = [(history.genomes[name], history.results[name, last].metrics) for name in names]
    if default is Baseline.DEFAULT_RECIPE:
        finalists.append((baseline_of(state), history.trained_beside[default, last].metrics))
    if has_head(state):
        finalists.append((HEAD_ALONE, history.trained_beside[Baseline.TRAINED_HEAD, last].metrics))
    return finalists
