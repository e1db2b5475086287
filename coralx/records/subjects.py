"""Whom a result or a measurement is of: a genome of the search, or what it is held against.

A ledger, a report and a run folder have an id for each; here is what the ids mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

BASELINE = "_baseline"
"""The id of the default recipe when it is trained beside the search; no genome's can be like it."""

PRIOR = "_prior"
"""The id of the priors' centre when it is trained beside the search; no genome's can be like it."""

HEAD = "_head"
"""The id of the head that is trained on the frozen base beside the search; no genome's can be like
it."""

FRESH = "_fresh-"
"""What the id of a member of the front begins with when it is trained from scratch beside it."""


@dataclass(frozen=True)
class Searched:
    """A genome of the search."""

    genome: str


@dataclass(frozen=True)
class FromScratch:
    """The genes of a genome, trained from scratch beside the search to verify it."""

    genome: str


class Baseline(Enum):
    """What every run's front is held against. The value is the id."""

    UNTUNED = None
    DEFAULT_RECIPE = BASELINE
    PRIOR_CENTER = PRIOR
    TRAINED_HEAD = HEAD


RECIPES = (Baseline.DEFAULT_RECIPE, Baseline.PRIOR_CENTER)
"""Baselines that are a recipe, trained through all stages."""


Subject = Searched | FromScratch | Baseline


def subject_of(name: str | None) -> Subject:
    """Whom an id stands for."""
    if name is not None and name.startswith(FRESH):
        return FromScratch(name.removeprefix(FRESH))
    if name is None or name in (BASELINE, PRIOR, HEAD):
        return Baseline(name)
    return Searched(name)


def id_of(subject: Subject) -> str | None:
    """The id as ledger, report and run folder have it; None for the untuned base."""
    match subject:
        case Searched(genome=genome):
            return genome
        case FromScratch(genome=genome):
            return FRESH + genome
        case Baseline():
            name: str | None = subject.value
            return name


def title_of(name: str | None) -> str:
    """What an id is called in front of people."""
    match subject_of(name):
        case Searched(genome=genome):
            return genome
        case FromScratch(genome=genome):
            return f"{genome} from scratch"
        case Baseline.UNTUNED:
            return "untuned"
        case Baseline.DEFAULT_RECIPE:
            return "default recipe"
        case Baseline.PRIOR_CENTER:
            return "prior's centre"
        case Baseline.TRAINED_HEAD:
            return "trained head on the frozen base"
