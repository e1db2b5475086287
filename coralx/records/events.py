"""The events of a run's ledger, about in the order in which a run writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coralx.records.experience import Experience
from coralx.records.genomes import Genome
from coralx.records.jobs import StageBudget
from coralx.records.results import Comparison, Measurement, StageResult
from coralx.records.run_facts import Axis, Facts, Settings
from coralx.records.rung_reliability import RungReliability
from coralx.records.verdicts import Verdict


@dataclass(frozen=True)
class RunStarted:
    """The first event: what was found out and chosen before anything was trained."""

    format: int
    """Of the ledger: the version of its line format."""
    run: str
    mode: str
    seed: int
    facts: Facts
    settings: Settings
    versions: Mapping[str, str]
    """Versions of Python and of the packages that a result depends on, by package."""
    hardware: Mapping[str, str | int]
    startup_seconds: float
    config: Mapping[str, Any] | None = None
    """The resolved config, as plain values; None in runs of versions that did not record it."""
    baseline_seed: int | None = None
    """Seeds the draws of the default recipe where it is trained outside the search; None in runs of
    versions that drew by its id alone."""
    reference: tuple[Axis, ...] = ()
    """The box in which hypervolume is measured, an axis for each objective; empty in runs of
    versions that measured it in the box that the first finishers spanned."""
    experience: Experience | None = None
    """What was taken over from earlier runs; None where there were none to learn from."""


@dataclass(frozen=True)
class RunResumed:
    """A later process continues the run."""

    startup_seconds: float
    workers: int
    lost_seconds: float = 0.0
    """How long the process before it went on after the ledger's last event, if it was killed."""
    config: Mapping[str, Any] | None = None
    """Its resolved config, which may have another budget, runtime and number of generations."""
    gpus: int | None = None
    """GPUs that it uses; None in runs of versions that did not record them."""


@dataclass(frozen=True)
class WorkerStarted:
    """A worker is ready."""

    worker: int
    pid: int
    device: str
    base_loads: int
    """How often it has loaded the base model: once."""
    load_seconds: float
    start_seconds: float = 0.0
    """Since its process began; 0: not recorded, or the driver's own process."""


@dataclass(frozen=True)
class AttemptFailed:
    """A worker spent time on a job and returned no result.

    What it had kept of a long stage is continued by the next attempt, and then counts there again.
    """

    genome: str | None
    """None: the untuned base, which is only ever measured."""
    stage: str
    """"test" for a measurement on the test split."""
    seconds: float


@dataclass(frozen=True)
class GenerationStarted:
    """The genomes of a generation are fixed."""

    generation: int
    genomes: tuple[Genome, ...]
    warnings: tuple[str, ...] = ()
    budgets: tuple[StageBudget, ...] = ()
    """What each stage gets in this generation, where budgets adapt; else empty."""
    diversity: float | None = None
    """That of the parents, by which budgets adapt; 1 is the founders'."""


@dataclass(frozen=True)
class StageCompleted:
    """A genome was trained through a stage, whether or not its training diverged."""

    generation: int
    result: StageResult


@dataclass(frozen=True)
class CheckpointRestored:
    """A checkpoint that was damaged or missing was trained again. The decisions of its stage stay
    as they were; the steps count against the budget."""

    generation: int
    result: StageResult


@dataclass(frozen=True)
class GenomeFailed:
    """Every attempt at a genome's stage failed; the search goes on without it."""

    generation: int
    genome: str
    stage: str
    reason: str


@dataclass(frozen=True)
class StageDecided:
    """Who goes on from a stage, and why the others do not.

    Under asynchronous promotion one stage has several of these, each with further verdicts.
    """

    generation: int
    stage: str
    verdicts: tuple[Verdict, ...]
    not_judged: tuple[str, ...] = ()
    """Ids of genomes with too few steps for at least one of the stage's stop rules."""
    warnings: tuple[str, ...] = ()
    newborn: tuple[Genome, ...] = ()
    """Mutated copies that go on in place of others; see `verdicts.Replace`."""
    reliability: RungReliability | None = None
    """How well the stage has ranked what came later; None where that is not known yet."""


@dataclass(frozen=True)
class GenomeDerived:
    """A genome was made from finished ones without training, and scored."""

    generation: int
    """The one after whose last stage this happened."""
    genome: Genome
    result: StageResult


@dataclass(frozen=True)
class DerivationFailed:
    """Every attempt at a derivation failed; the search goes on without it."""

    generation: int
    genome: Genome
    reason: str


@dataclass(frozen=True)
class GenerationCompleted:
    """A generation is over, and the parents of the next are chosen."""

    generation: int
    population: tuple[str, ...]
    """Ids of the parents, best first."""


@dataclass(frozen=True)
class WorkerStopped:
    """A worker ended, after so many base loads and jobs in all."""

    worker: int
    base_loads: int
    jobs: int


@dataclass(frozen=True)
class FrontMeasured:
    """A member of the front, or a baseline, was measured on the test split."""

    measurement: Measurement


@dataclass(frozen=True)
class MeasurementFailed:
    """A member of the front, or a baseline (None: the untuned base), could not be measured on the
    test split. A later process tries it again."""

    genome: str | None
    reason: str


@dataclass(frozen=True)
class TrainedBeside:
    """The default recipe, a head on the frozen base, or a member of the front from scratch was
    trained outside the search. `result.genome` says which; its cost is counted apart."""

    result: StageResult


@dataclass(frozen=True)
class FrontCompared:
    """The members of the front were compared on the test split, with each other and with the
    baselines."""

    pairs: tuple[Comparison, ...]
    """Empty where no scores of rows were kept, or no objective is read off predictions."""


@dataclass(frozen=True)
class BudgetSpent:
    """A limit of the config's `budget` ended the search early; a resume under a higher one goes
    on."""

    limits: str
    """That limit's key and value; earlier versions named all that were set."""


@dataclass(frozen=True)
class RunCompleted:
    """The search is over."""

    front: tuple[str, ...]
    """Ids, the best on the first objective first."""


Event = (
    RunStarted
    | RunResumed
    | WorkerStarted
    | WorkerStopped
    | AttemptFailed
    | GenerationStarted
    | StageCompleted
    | CheckpointRestored
    | GenomeFailed
    | StageDecided
    | GenomeDerived
    | DerivationFailed
    | GenerationCompleted
    | FrontMeasured
    | MeasurementFailed
    | FrontCompared
    | TrainedBeside
    | BudgetSpent
    | RunCompleted
)

CODES: Mapping[str, type[Event]] = {
    "RunStarted": RunStarted,
    "RunResumed": RunResumed,
    "WorkerStarted": WorkerStarted,
    "WorkerStopped": WorkerStopped,
    "AttemptFailed": AttemptFailed,
    "GenerationStarted": GenerationStarted,
    "StageCompleted": StageCompleted,
    "CheckpointRestored": CheckpointRestored,
    "GenomeFailed": GenomeFailed,
    "StageDecided": StageDecided,
    "GenomeDerived": GenomeDerived,
    "DerivationFailed": DerivationFailed,
    "GenerationCompleted": GenerationCompleted,
    "FrontMeasured": FrontMeasured,
    "MeasurementFailed": MeasurementFailed,
    "FrontCompared": FrontCompared,
    "TrainedBeside": TrainedBeside,
    "BudgetSpent": BudgetSpent,
    "RunCompleted": RunCompleted,
}
"""The code of each event in a ledger. Ledgers must be readable for ever, so a class may be renamed,
but its code may not."""

FORMER_CODES: Mapping[str, type[Event]] = {
    "BaselineTrained": TrainedBeside,  # while only the baseline was
}
"""Codes that earlier versions wrote: still read, no longer written."""

_CODE_OF = {cls: code for code, cls in CODES.items()}


def code_of(event: Event) -> str:
    """The code that stands for an event's class in a ledger."""
    return _CODE_OF[type(event)]


def class_of(code: str) -> type[Event] | None:
    """The class of event that a ledger's code stands for; None for an unknown code."""
    return CODES.get(code) or FORMER_CODES.get(code)
