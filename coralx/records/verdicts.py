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
    """Among the poorest of those good enough to go on: a mutated copy of a better one goes on in
    its place."""

    genome: str
    by: str
    """The id of the copy."""
    kind: Literal["replace"] = "replace"


@dataclass(frozen=True)
class Finish:
    """Completed the last stage."""

    genome: str
    kind: Literal["finish"] = "finish"


@dataclass(frozen=True)
class Cut:
    """Kept by every stop rule, but not among those that the stage's survival rate lets pass."""

    genome: str
    place: int
    """Its place among the stage's genomes, from 1."""
    quota: int
    """How many of them went on."""
    kind: Literal["cut"] = "cut"


@dataclass(frozen=True)
class Stop:
    """Taken out at `step`: by a stop rule, or because its training ended within the stage."""

    genome: str
    rule: str
    """The rule, or the reason in words."""
    value: float | None
    """The figure that met the rule; None where training ended within the stage."""
    step: int
    kind: Literal["stop"] = "stop"


@dataclass(frozen=True)
class Fail:
    """Every attempt to train it failed."""

    genome: str
    reason: str
    kind: Literal["fail"] = "fail"


Verdict = Promote | Replace | Finish | Cut | Stop | Fail
