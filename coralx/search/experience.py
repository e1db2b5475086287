"""What earlier runs teach a new one: founders, priors, and learning rates to stay away from.

Nothing here is a wall. Founders from earlier fronts take a third of generation 0 at most, a quarter
of the others is drawn as if nothing were known, and a prior never becomes narrower than a floor.
So experience that is of no use costs a few trainings, and cannot trap the search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coralx.records.experience import ExplodedRates, KnownFounder, Likeness, MovedPrior
from coralx.records.genomes import Genes
from coralx.rng import generator
from coralx.search.priors import Prior
from coralx.search.space import Categorical, Continuous, Integer, Ordered, Space
from coralx.text import enumerated

FOUNDERS: dict[Likeness, float] = {
    "same base and data": 1 / 3,
    "same base": 1 / 4,
    "same kind": 1 / 8,
}
"""Of generation 0, the most that come from fronts of runs that are no more like."""

DRAWN = 2
"""Founders that are drawn in any case, of which one ignores the priors."""

FEWEST = 6
"""Trained genomes without which a run says nothing of where good values lie."""

BEST_SHARE = 1 / 4
"""Of a run's genomes, how many count as its good ones; three at least."""

LIKELIHOOD = 0.1
"""How often genomes drawn by lot may lie so close together that they count as evidence."""

DRAWS = 500

DISTANCE: dict[Likeness, float] = {
    "same base and data": 0.2,
    "same base": 0.3,
    "same kind": 0.4,
}
"""By how much the best value of two runs may differ (a standard deviation), as a share of `EXTENT`
on a log scale, else of the gene's range."""

EXTENT = 1.0
"""Decades."""

KNOWN = 2.0
"""That distance to a run of the same kind where the gene has a prior, in its spreads."""

LIKEST_FIRST: tuple[Likeness, ...] = ("same base and data", "same base", "same kind")


@dataclass(frozen=True)
class Trial:
    """A genome as an earlier run trained it."""

    genome: str
    genes: Genes
    diverged: bool = False


@dataclass(frozen=True)
class Evidence:
    """What an earlier run found."""

    run: str
    likeness: Likeness
    trials: Sequence[Trial]
    """All that it trained, the best first: by the furthest stage, then by skill."""
    front: Sequence[Trial]
    """The best on skill first."""


def with_priors(space: Space, moved: Sequence[MovedPrior]) -> Space:
    """The space with its priors as they were moved."""
    priors = {each.gene: Prior(each.center, each.spread, each.source) for each in moved}
    return replace(space, priors={**space.priors, **priors})


# -- founders --------------------------------------------------------------------------------------


def known_founders(
    space: Space, population_size: int, evidence: Sequence[Evidence], given: Sequence[Genes] = ()
) -> list[KnownFounder]:
    """Founders from earlier fronts, those of the likest runs first; runs that are equally like
    share the places, and of a run that may have been led by chance there is one at most. Only
    what the space holds, beside those that are `given` already and the `DRAWN`."""
    founders: list[KnownFounder] = []
    taken = set(given)
    room = population_size - len(taken) - DRAWN
    for likeness in LIKEST_FIRST:
        places = min(int(FOUNDERS[likeness] * population_size), room)
        peers = [one for one in evidence if one.likeness == likeness]
        for position, one in enumerate(peers):
            left = max(places - len(founders), 0)
            fair = math.ceil(left / (len(peers) - position))
            fair = fair if tells(space, one) else min(fair, 1)
            fitting = list({t.genes: t for t in one.front if space.contains(t.genes)}.values())
            for trial in _spread_out([t for t in fitting if t.genes not in taken], fair):
                taken.add(trial.genes)
                founders.append(KnownFounder(trial.genes, one.run, trial.genome))
    return founders


def _spread_out(front: Sequence[Trial], count: int) -> list[Trial]:
    """So many of a front, evenly along it, beginning with its best on skill."""
    count = min(count, len(front))
    return [front[place * len(front) // count] for place in range(count)]


# -- rates that explode ----------------------------------------------------------------------------


def exploded_rates(evidence: Evidence) -> ExplodedRates | None:
    """The lowest learning rate that diverged and from which on at least half of the run's genomes
    did; None where there is none. Single ones further down diverged for their rank or scaling."""
    for rate in sorted({t.genes.learning_rate for t in evidence.trials if t.diverged}):
        beyond = [t for t in evidence.trials if t.genes.learning_rate >= rate]
        diverged = sum(t.diverged for t in beyond)
        if 2 * diverged >= len(beyond):
            return ExplodedRates(evidence.run, rate, diverged, len(beyond))
    return None


# -- priors ----------------------------------------------------------------------------------------


def moved_priors(
    space: Space, evidence: Sequence[Evidence], left_out: Sequence[str] = ()
) -> list[MovedPrior]:
    """The priors of the space's genes moved towards what worked, and away from learning rates that
    exploded; of a gene without prior a new one where the evidence is consistent. Genes that do not
    move are not listed, nor those `left_out`."""
    moved = []
    for name, gene in space.genes.items():
        if isinstance(gene, Categorical) or name in left_out or gene.width == 0:
            continue
        former = space.priors.get(name)
        found = _combined(gene, former, [_sighting(gene, name, former, e) for e in evidence])
        if name == "learning_rate":
            found = _kept_below(gene, former, found, evidence)
        if found is not None:
            moved.append(_written(name, gene, former, found))
    return moved


Numeric = Continuous | Integer | Ordered


@dataclass(frozen=True)
class _Sighting:
    """Where the good values of a gene lie in one run."""

    run: str
    place: float
    error: float
    """The variance of that place."""
    distance: float
    """How far from it the best value of the new run may be, a standard deviation."""
    reliability: float
    """From 0 to 1: how surely the good ones lie there for a reason."""


@dataclass(frozen=True)
class _Found:
    """A prior on the gene's scale, and what it rests on."""

    place: float
    spread: float
    runs: tuple[str, ...]
    below: float | None = None
    """It was lowered to stay below this learning rate."""


def _place(gene: Numeric, value: float) -> float:
    """A value, or the nearest that the gene can have, on the scale on which spreads of priors are
    measured: from the range's low end."""
    return gene.encode(gene.nearest(value)) * gene.width


def _unit(gene: Numeric) -> float:
    """That of `DISTANCE` on the gene's scale."""
    return EXTENT if not isinstance(gene, Ordered) and gene.log else gene.width


def _distance(gene: Numeric, former: Prior | None, likeness: Likeness) -> float:
    """By how much the best values of two runs may differ, on the gene's scale; of choices by a
    step at least. What is known of a kind stands in its prior already, so that one run more of
    that kind says little."""
    distance = DISTANCE[likeness] * _unit(gene)
    if former is not None and likeness == "same kind":
        distance = max(distance, KNOWN * former.spread)
    return max(distance, 1.0) if isinstance(gene, Ordered) else distance


def _sighting(
    gene: Numeric, name: str, former: Prior | None, evidence: Evidence
) -> _Sighting | None:
    """Whether the run's good genomes lie closer together than as many that are drawn from all of
    them, and where. Breeding alone brings genomes together, so that only a draw tells."""
    places = np.array([_place(gene, getattr(trial.genes, name)) for trial in evidence.trials])
    if len(places) < FEWEST or np.ptp(places) == 0.0:
        return None
    good = places[: max(3, round(BEST_SHARE * len(places)))]
    grain = 1 / 12 if isinstance(gene, Ordered) else 0.0  # a step hides where in it a value lies
    within = float(np.var(good, ddof=1)) + grain
    by_chance = float(np.quantile(_drawn_variances(places, len(good)), LIKELIHOOD)) + grain
    if within >= by_chance:
        return None
    reliability = 1.0 - within / by_chance
    distance = _distance(gene, former, evidence.likeness)
    place, error = float(np.mean(good)), within / len(good)
    return _Sighting(evidence.run, place, error, distance, reliability)


def tells(space: Space, evidence: Evidence) -> bool:
    """Whether any gene of the space can be seen to have mattered in a run."""
    return any(
        _sighting(gene, name, None, evidence) is not None
        for name, gene in space.genes.items()
        if not isinstance(gene, Categorical)
    )


def _drawn_variances(places: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The variances of so many of `places`, drawn again and again; always the same draws."""
    order = generator(0, "experience").random((DRAWS, len(places))).argsort(axis=1)
    variances: NDArray[np.float64] = np.var(places[order[:, :count]], axis=1, ddof=1)
    return variances


def _combined(
    gene: Numeric,
    former: Prior | None,
    sightings: Sequence[_Sighting | None],
) -> _Found | None:
    """The mean of prior and sightings, each weighted by its precision (as in a meta-analysis of
    random effects, DerSimonian and Laird 1986), and wider by Birge's ratio (1932) where they
    contradict each other. None where nothing was seen, or too little for a prior of its own."""
    seen = [sighting for sighting in sightings if sighting is not None]
    if not seen:
        return None
    start = _place(gene, former.center) if former else gene.width / 2
    spread = former.spread if former else gene.width / 2
    terms = [(start, 1 / spread**2)]
    terms += [(e.place, e.reliability / (e.distance**2 + e.error)) for e in seen]
    precision = sum(weight for _, weight in terms)
    place = sum(weight * where for where, weight in terms) / precision
    excess = sum(weight * (where - place) ** 2 for where, weight in terms) / (len(terms) - 1)
    wide = math.sqrt(max(excess, 1.0) / precision)
    wide = min(max(wide, min(each.distance for each in seen)), spread)
    if former is None and wide > min(gene.width / 4, _unit(gene) / 2):
        return None
    return _Found(place, wide, tuple(each.run for each in seen))


def _kept_below(
    gene: Numeric,
    former: Prior | None,
    found: _Found | None,
    evidence: Sequence[Evidence],
) -> _Found | None:
    """The prior with five sixths of its mass below the lowest rate that exploded; less like runs
    are believed less far."""
    ceilings = []
    for one in evidence:
        rates = exploded_rates(one)
        if rates is not None and rates.lowest <= gene.decode(1.0):
            doubt = DISTANCE[one.likeness] - DISTANCE["same base and data"]
            ceilings.append((_place(gene, rates.lowest) + doubt * _unit(gene), one.run, rates))
    if not ceilings:
        return found
    ceiling, run, rates = min(ceilings, key=lambda each: each[0])
    if found is not None:
        place, spread = found.place, found.spread
    elif former is not None:
        place, spread = _place(gene, former.center), former.spread
    elif 0.0 < ceiling < gene.width:  # all that is left below
        place, spread = ceiling / 2, ceiling / 2
        return _Found(place, spread, (run,), rates.lowest)
    else:
        return None
    if place + spread <= ceiling:
        return found
    runs = tuple(dict.fromkeys((*(found.runs if found else ()), run)))
    return _Found(max(ceiling - spread, 0.0), spread, runs, rates.lowest)


def _written(name: str, gene: Numeric, former: Prior | None, found: _Found) -> MovedPrior:
    center = gene.decode(min(max(found.place / gene.width, 0.0), 1.0))
    if isinstance(gene, Continuous):  # more digits would be pretence
        center = gene.nearest(float(f"{center:.3g}"))
    source = f"learned from {enumerated(found.runs)}"
    if former is not None:
        source += f" and {former.source}"
    if found.below is not None:
        source += f"; kept below {found.below:.3g}, where trainings exploded"
    return MovedPrior(
        name,
        float(center),
        float(f"{found.spread:.4g}"),
        source,
        former.center if former else None,
        former.spread if former else None,
    )
