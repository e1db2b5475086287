"""What a stage decides about a genome that entered it: one of six verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Promote:
    """Goes on to the next stage."""

    genome: str
    kind: Literal["promote"] = "promote"


@dataclass(frozen=True)
class Replace:
    """Good enough to go on, but among the poorest of those: a mutated copy of a better one goes on
    in its place."""

    genome: str
    by: str
    kind: Literal["replace"] = "replace"


@dataclass(frozen=True)
class Finish:
    """Completed the last stage."""

    genome: str
    kind: Literal["finish"] = "finish"


@dataclass(frozen=True)
class Cut:
    """Sound, but not among those that the stage's survival rate lets pass."""

    genome: str
    place: int
    quota: int
    kind: Literal["cut"] = "cut"


@dataclass(frozen=True)
class Stop:
    """Taken out at `step`: by a stop rule, or for what ended its training within the stage."""

    genome: str
    rule: str
    value: float | None
    step: int
    kind: Literal["stop"] = "stop"


@dataclass(frozen=True)
class Fail:
    """Its worker failed, on every attempt."""

    genome: str
    reason: str
    kind: Literal["fail"] = "fail"


Verdict = Promote | Replace | Finish | Cut | Stop | Fail
