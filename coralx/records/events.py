"""The events of a run's ledger, in the order in which a run brings them forth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coralx.records.genomes import Genome
from coralx.records.jobs import StageBudget
from coralx.records.results import Comparison, Measurement, StageResult
from coralx.records.run_facts import Axis, Facts, Settings
from coralx.records.verdicts import Verdict


@dataclass(frozen=True)
class RunStarted:
    """The first event: what was found and chosen before anything was trained, under which resolved
    config (None: by a version that did not record it). `baseline_seed` is what the default recipe
    draws by where it is trained beside the search (None: by its id alone, as versions before did).
    `reference` is the box in which hypervolume is measured, an axis for each objective (none: by
    versions that measured it in the box that the first finishers spanned).
    """

    format: int
    run: str
    mode: str
    seed: int
    facts: Facts
    settings: Settings
    versions: Mapping[str, str]
    hardware: Mapping[str, str | int]
    startup_seconds: float
    config: Mapping[str, Any] | None = None
    baseline_seed: int | None = None
    reference: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class RunResumed:
    """A later process took the run up with so many workers, after so many seconds, under a config
    that may have another budget, runtime and number of generations. `lost_seconds`: how long the
    process before it went on after the ledger's last event, if it was killed."""

    startup_seconds: float
    workers: int
    lost_seconds: float = 0.0
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class WorkerStarted:
    """A worker is ready. `base_loads` counts how often it has loaded the base model: once."""

    worker: int
    pid: int
    device: str
    base_loads: int
    load_seconds: float


@dataclass(frozen=True)
class AttemptFailed:
    """A worker was at a genome's stage (with `stage` "test": at a measurement, `genome` None being
    the untuned base) for so many seconds, and brought nothing. What it had kept of a long stage is
    taken up by the next attempt, and then counts there once more."""

    genome: str | None
    stage: str
    seconds: float


@dataclass(frozen=True)
class GenerationStarted:
    """The genomes of a generation are fixed, and where budgets adapt, what each stage gets in it
    by the parents' `diversity` (1: that of the founders)."""

    generation: int
    genomes: tuple[Genome, ...]
    warnings: tuple[str, ...] = ()
    budgets: tuple[StageBudget, ...] = ()
    diversity: float | None = None


@dataclass(frozen=True)
class StageCompleted:
    """A genome went through a stage, whatever came of it."""

    generation: int
    result: StageResult


@dataclass(frozen=True)
class CheckpointRestored:
    """A checkpoint that was damaged or missing was trained again. What had been decided by its
    stage stays; the steps count against the budget."""

    generation: int
    result: StageResult


@dataclass(frozen=True)
class GenomeFailed:
    """A genome brought no result on any attempt; the search goes on."""

    generation: int
    genome: str
    stage: str
    reason: str


@dataclass(frozen=True)
class StageDecided:
    """Who goes on from a stage, and why the others do not; `newborn` go on in place of others.

    Under asynchronous promotion one stage has several of these, each with further verdicts.
    """

    generation: int
    stage: str
    verdicts: tuple[Verdict, ...]
    not_judged: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    newborn: tuple[Genome, ...] = ()


@dataclass(frozen=True)
class GenerationCompleted:
    """`population` are the parents of the next generation, best first."""

    generation: int
    population: tuple[str, ...]


@dataclass(frozen=True)
class WorkerStopped:
    """At the worker's end: `base_loads` as it stood then."""

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
    """The default recipe, a head on the frozen base, or a member of the front from scratch, was
    trained beside the search; counted apart. `result.genome` tells which."""

    result: StageResult


@dataclass(frozen=True)
class FrontCompared:
    """The front was compared pair by pair on the test split, and with what it is held against.

    Without `pairs` where no scores of rows were kept, or no objective is a figure of predictions.
    """

    pairs: tuple[Comparison, ...]


@dataclass(frozen=True)
class BudgetSpent:
    """A limit ended the search before its time; a resume under a higher limit goes on. `limits` is
    that limit's key and value; earlier versions named all that were set."""

    limits: str


@dataclass(frozen=True)
class RunCompleted:
    """The search is over; `front` best first objective first."""

    front: tuple[str, ...]


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
    "GenerationCompleted": GenerationCompleted,
    "FrontMeasured": FrontMeasured,
    "MeasurementFailed": MeasurementFailed,
    "FrontCompared": FrontCompared,
    "TrainedBeside": TrainedBeside,
    "BudgetSpent": BudgetSpent,
    "RunCompleted": RunCompleted,
}
"""What stands for each event in a ledger, which must be readable for ever: a class may be renamed,
its code may not."""

FORMER_CODES: Mapping[str, type[Event]] = {
    "BaselineTrained": TrainedBeside,  # while only the baseline was
}
"""Codes of earlier versions that are read and no longer written."""

_CODE_OF = {cls: code for code, cls in CODES.items()}


def code_of(event: Event) -> str:
    """What stands for the event's class in a ledger."""
    return _CODE_OF[type(event)]


def class_of(code: str) -> type[Event] | None:
    """The class of event that a code of a ledger stands for; None for one that is not known."""
    return CODES.get(code) or FORMER_CODES.get(code)
