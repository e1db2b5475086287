"""The messages between driver and worker: one JSON object a line, its type in `kind`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from coralx.records.jobs import DeriveJob, Job, MeasureJob
from coralx.records.results import Derived, Measurement, Progress, StageResult
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Facts, Footprint

# -- to the worker -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepare:
    """Load base model and data."""

    config: dict[str, Any]
    """Resolved: with every default."""
    precision: str | None
    """fp32 or bf16; None: as the config says, or measured."""
    threads: int
    revision: int
    """See `run_facts.Settings`."""
    checkpointing: bool | None = None
    """As the run has decided; None: as the config says, or by need."""
    memory: DeviceMemory = NO_MEMORY
    """Of the smallest GPU in use, as the driver sees it, and how many workers share it."""
    pack: int | None = 1
    """How many genomes are to be trained together, if that is possible; None: as many as pay; 1:
    nothing is to be found out."""
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True)
class Train:
    """Train one genome through one stage."""

    job: Job
    kind: Literal["train"] = "train"


@dataclass(frozen=True)
class TrainPack:
    """Train several genomes together; each result is reported as it comes."""

    jobs: tuple[Job, ...]
    kind: Literal["train pack"] = "train pack"


@dataclass(frozen=True)
class Measure:
    """Measure a finished adapter, or the untuned base."""

    job: MeasureJob
    kind: Literal["measure"] = "measure"


@dataclass(frozen=True)
class Derive:
    """Make an adapter from finished ones without training, and score it."""

    job: DeriveJob
    kind: Literal["derive"] = "derive"


@dataclass(frozen=True)
class Pause:
    """Stop the job that is under way, if there is one, and keep what it has trained so far."""

    kind: Literal["pause"] = "pause"


@dataclass(frozen=True)
class DescribeBase:
    """Report the sizes of a config's base without loading it. No Prepare is needed before."""

    config: dict[str, Any]
    memory: DeviceMemory = NO_MEMORY
    """As in Prepare."""
    kind: Literal["describe base"] = "describe base"


@dataclass(frozen=True)
class Shutdown:
    """No more orders."""

    kind: Literal["shutdown"] = "shutdown"


Order = Prepare | Train | TrainPack | Measure | Derive | Pause | DescribeBase | Shutdown

# -- from the worker -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """The backend is imported: which devices it sees."""

    device: str
    device_count: int
    kind: Literal["hello"] = "hello"


@dataclass(frozen=True)
class Ready:
    """Base model and data are loaded."""

    facts: Facts
    base_loads: int
    load_seconds: float
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True)
class Note:
    """A line about what the worker is doing."""

    text: str
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Step:
    """Training continues."""

    progress: Progress
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class Heartbeat:
    """Work continues; nothing else is to be reported."""

    kind: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True)
class Calling:
    """A function of the user's is called, or with None: has returned."""

    function: str | None
    kind: Literal["calling"] = "calling"


@dataclass(frozen=True)
class JobPaused:
    """A job was stopped, as Pause asked."""

    kind: Literal["job paused"] = "job paused"


@dataclass(frozen=True)
class TrainingDone:
    """A training job is done."""

    result: StageResult
    kind: Literal["training done"] = "training done"


@dataclass(frozen=True)
class MeasuringDone:
    """A measuring job is done."""

    measurement: Measurement
    kind: Literal["measuring done"] = "measuring done"


@dataclass(frozen=True)
class DerivingDone:
    """An adapter is derived and scored."""

    derived: Derived
    kind: Literal["deriving done"] = "deriving done"


@dataclass(frozen=True)
class BaseDescribed:
    """The sizes of a config's base."""

    footprint: Footprint
    kind: Literal["base described"] = "base described"


@dataclass(frozen=True)
class Failed:
    """An exception."""

    error: str
    """The name of its class."""
    message: str
    hint: str
    known: bool
    """Whether it is one of CoralX's own errors."""
    traceback: str
    problems: tuple[str, ...] = ()
    """Of a ConfigError."""
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True)
class Goodbye:
    """The last reply of a worker, after Shutdown."""

    base_loads: int
    jobs: int
    kind: Literal["goodbye"] = "goodbye"


Reply = (
    Hello
    | Ready
    | Note
    | Step
    | Heartbeat
    | Calling
    | JobPaused
    | TrainingDone
    | MeasuringDone
    | DerivingDone
    | BaseDescribed
    | Failed
    | Goodbye
)

_ORDERS: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])
_REPLIES: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])


def encode(message: Order | Reply) -> bytes:
    """A message as one line."""
    return TypeAdapter(type(message)).dump_json(message) + b"\n"


def decode_order(line: bytes) -> Order:
    """Read a line from the driver."""
    return _ORDERS.validate_json(line)


def decode_reply(line: bytes) -> Reply:
    """Read a line from a worker."""
    return _REPLIES.validate_json(line)
