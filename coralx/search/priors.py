"""What is expected of a gene before anything is trained, and how far a search trusts it.

A prior is never a wall: of founders, and of the first that are bred, one of four ignores it; no
parent is drawn back to its centre; and what it says of steps and draws fades from generation to
generation, as results of the search's own come in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

INFORMED = 3 / 4
"""The share of sampled founders that are drawn from the priors."""

UNIFORM_SPREAD = 1 / math.sqrt(12)
"""The standard deviation of a gene that is as likely everywhere in its range, in the unit of the
range."""


@dataclass(frozen=True)
class Prior:
    """Where a gene's good values are expected: a normal distribution on the gene's scale, truncated
    to its range."""

    center: float
    """In the gene's own unit."""
    spread: float
    """The standard deviation: in decades for a range on a log scale, in the gene's own unit for a
    linear one, in steps along sorted choices."""
    source: str
    """Where it comes from, in words."""


def weight(generation: int) -> float:
    """How much of a prior counts in a generation: whole for founders and their children, then half
    as much in each that follows."""
    return 0.5 ** max(generation - 1, 0)


def mutation_spread(spread: float, generation: int, usual: float) -> float:
    """The standard deviation of a mutation's step in a gene whose prior has that `spread`: at first
    the same, so that a step leads to where the prior thinks the gene likely, and in the end the
    `usual` one. All in the unit of the gene's range."""
    return usual + weight(generation) * (min(spread, UNIFORM_SPREAD) - usual)


def quantile(center: float, spread: float, share: float) -> float:
    """Where the normal distribution, truncated to [0, 1], has `share` of its mass below; `center`
    lies in [0, 1]."""
    normal = NormalDist(center, spread)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    mass = low + share * (high - low)
    return min(max(normal.inv_cdf(mass), 0.0), 1.0) if 0.0 < mass < 1.0 else round(mass)


def uniform_rows(count: int) -> list[int]:
    """Which of `count` sampled founders ignore the priors: one of four, spread over the sample; of
    two or three one as well, of a single one none."""
    ignoring = math.floor(count * (1 - INFORMED) + 0.5)
    return [math.floor((place + 0.5) * count / ignoring) for place in range(ignoring)]
