"""What a run took over from earlier ones: recorded at its start, so that it never needs them again.

Adapters, that is weights, are not among it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coralx.records.genomes import Genes

Likeness = Literal["same base and data", "same base", "same kind"]
"""How far an earlier run speaks of a later one: the likest first."""


@dataclass(frozen=True)
class Source:
    """An earlier run."""

    path: str
    """As it was given: its folder, or its name under `runs/`."""
    run: str
    """Its name."""
    likeness: Likeness | None
    """None: it says nothing of this run, and nothing is taken over."""
    genomes: int
    """How many it had trained by then."""
    finished: int
    """How many of them had completed its last stage."""
    remark: str = ""
    """Why nothing is taken over, in words; else empty."""


@dataclass(frozen=True)
class KnownFounder:
    """Genes of an earlier front that are trained anew in generation 0."""

    genes: Genes
    run: str
    genome: str
    """Its id there."""


@dataclass(frozen=True)
class MovedPrior:
    """Where a gene's good values are expected, in the light of earlier runs; units as in
    `search.priors.Prior`."""

    gene: str
    center: float
    spread: float
    source: str
    """What it rests on, in words."""
    former_center: float | None = None
    former_spread: float | None = None
    """As it was before; both None where there was no prior."""


@dataclass(frozen=True)
class ExplodedRates:
    """Learning rates that made most of an earlier run's trainings diverge."""

    run: str
    lowest: float
    """From this rate on most did."""
    diverged: int
    trained: int
    """How many diverged of those that were trained at it or above."""


@dataclass(frozen=True)
class KnownRung:
    """How a stage of an earlier run ranked those that finished later."""

    run: str
    likeness: Likeness
    stage: str
    share: float
    """Its steps, as a share of the last stage's."""
    ranked: int
    """How many genomes it scored."""
    finishers: tuple[int, ...]
    """The places at the stage, from 0 for the best, of those that finished; the best at the end
    first."""


@dataclass(frozen=True)
class Experience:
    """All that was taken over from earlier runs."""

    sources: tuple[Source, ...]
    founders: tuple[KnownFounder, ...] = ()
    priors: tuple[MovedPrior, ...] = ()
    exploded: tuple[ExplodedRates, ...] = ()
    rungs: tuple[KnownRung, ...] = ()
    """Of the scored stages before the last, where at least two genomes finished."""
