"""What driver and worker say to each other: one JSON object a line, told apart by `kind`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from coralx.records.jobs import Job, MeasureJob
from coralx.records.results import Measurement, Progress, StageResult
from coralx.records.run_facts import Facts, Footprint

# -- to the worker -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepare:
    """Load base model and data. `config` is the resolved config; `precision` None: measure;
    `revision`: see `run_facts.Settings`."""

    config: dict[str, Any]
    precision: str | None
    threads: int
    revision: int
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True)
class Train:
    """Train one genome through one stage."""

    job: Job
    kind: Literal["train"] = "train"


@dataclass(frozen=True)
class Measure:
    """Measure a finished adapter, or the untuned base."""

    job: MeasureJob
    kind: Literal["measure"] = "measure"


@dataclass(frozen=True)
class Pause:
    """Leave the job that is under way, if there is one, where it stands."""

    kind: Literal["pause"] = "pause"


@dataclass(frozen=True)
class Inspect:
    """Tell the sizes of a config's base without loading it. No Prepare is needed before."""

    config: dict[str, Any]
    kind: Literal["inspect"] = "inspect"


@dataclass(frozen=True)
class Shutdown:
    """No more orders."""

    kind: Literal["shutdown"] = "shutdown"


Order = Prepare | Train | Measure | Pause | Inspect | Shutdown

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
    """Training goes on."""

    progress: Progress
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class Heartbeat:
    """Work goes on, and there is nothing to say about it."""

    kind: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True)
class Calling:
    """A function of the user's is called, or with None: has returned."""

    function: str | None
    kind: Literal["calling"] = "calling"


@dataclass(frozen=True)
class Left:
    """A job was left where it stood, as Pause asked."""

    kind: Literal["left"] = "left"


@dataclass(frozen=True)
class Trained:
    """A training job is done."""

    result: StageResult
    kind: Literal["trained"] = "trained"


@dataclass(frozen=True)
class Measured:
    """A measuring job is done."""

    measurement: Measurement
    kind: Literal["measured"] = "measured"


@dataclass(frozen=True)
class Inspected:
    """The base was described."""

    footprint: Footprint
    kind: Literal["inspected"] = "inspected"


@dataclass(frozen=True)
class Failed:
    """An exception, by the name of its class; `known` are CoralX's own errors."""

    error: str
    message: str
    hint: str
    known: bool
    traceback: str
    problems: tuple[str, ...] = ()
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True)
class Goodbye:
    """The last word of a worker that was told to stop."""

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
    | Left
    | Trained
    | Measured
    | Inspected
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
