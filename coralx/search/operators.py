"""Crossover and mutation of mixed genes, each gene by the operator for its type.

They work on values by gene name, so that any mapping of genes can be searched; `mutate` takes the
genes of a LoRA configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from coralx.records.genomes import Genes
from coralx.search.priors import mutation_spread
from coralx.search.space import Categorical, Continuous, Gene, Integer, Ordered, Space

SBX_ETA = 15.0
MUTATION_ETA = 20.0
"""Distribution indices: the greater, the nearer are children to their parents."""

STEP_SPREAD = math.sqrt(2.0 / ((MUTATION_ETA + 2.0) * (MUTATION_ETA + 3.0)))
"""The standard deviation of a mutation's step, far from the bounds, in the unit of the range."""

RATE_STEP = 0.3
"""By how many decades a child's learning rate differs from its better parent's in the first
generation that is bred, a standard deviation. No gene decides more: on replayed searches it leaves
a tenth less regret after two and three generations than mutating the rate like the other genes."""

NO_SCALES: Mapping[str, float] = MappingProxyType({})
"""Of mutations' steps where no gene has a prior."""


def sbx(u1: float, u2: float, rng: np.random.Generator, eta: float = SBX_ETA) -> float:
    """Simulated binary crossover on [0, 1] (Deb and Agrawal 1995), bounded form; one child.

    The spread factor is drawn so that no child leaves the bounds (Deb, Sindhya and Okabe 2007).
    """
    low, high = min(u1, u2), max(u1, u2)
    if high - low < 1e-14:
        return u1
    draw = rng.random()
    toward_low = bool(rng.random() < 0.5)
    room = low if toward_low else 1.0 - high
    beta = 1.0 + 2.0 * room / (high - low)
    alpha = 2.0 - beta ** -(eta + 1.0)
    if draw <= 1.0 / alpha:
        spread = (draw * alpha) ** (1.0 / (eta + 1.0))
    else:
        spread = (1.0 / (2.0 - draw * alpha)) ** (1.0 / (eta + 1.0))
    middle, half = (low + high) / 2.0, (high - low) / 2.0
    child = middle - spread * half if toward_low else middle + spread * half
    return float(min(max(child, 0.0), 1.0))


def polynomial_mutation(
    u: float, rng: np.random.Generator, eta: float = MUTATION_ETA, scale: float = 1.0
) -> float:
    """Polynomial mutation on [0, 1] (Deb and Goyal 1996), the bounded form of NSGA-II's code; its
    step times `scale`."""
    draw = rng.random()
    power = 1.0 / (eta + 1.0)
    if draw < 0.5:
        base = 2.0 * draw + (1.0 - 2.0 * draw) * (1.0 - u) ** (eta + 1.0)
        step = base**power - 1.0
    else:
        base = 2.0 * (1.0 - draw) + 2.0 * (draw - 0.5) * u ** (eta + 1.0)
        step = 1.0 - base**power
    return float(min(max(u + scale * step, 0.0), 1.0))


def _cross(gene: Gene, first: Any, second: Any, rng: np.random.Generator) -> Any:
    if isinstance(gene, Continuous | Integer):
        if rng.random() < 0.5:  # as in NSGA-II's code: half of the variables are exchanged
            return first
        return gene.decode(sbx(gene.encode(first), gene.encode(second), rng))
    return first if rng.random() < 0.5 else second


def _mutate(gene: Gene, value: Any, rng: np.random.Generator, scale: float) -> Any:
    match gene:
        case Continuous():
            return gene.decode(polynomial_mutation(gene.encode(value), rng, scale=scale))
        case Integer(low, high):
            place = gene.encode(value)
            moved = polynomial_mutation(place, rng, scale=scale)
            decoded = gene.decode(moved)
            if decoded != value or low == high:
                return decoded
            # In a narrow range most steps would round back to the same value: take the neighbour in
            # their direction, or at the end of the range the other one.
            neighbour = value + (1 if moved >= place else -1)
            return neighbour if low <= neighbour <= high else 2 * value - neighbour
        case Ordered(values):
            # A recipe of the user's may have a value that is none of the choices.
            nearest = min(range(len(values)), key=lambda place: abs(values[place] - value))
            place = nearest + (1 if rng.random() < 0.5 else -1)
            return values[min(max(place, 0), len(values) - 1)]
        case Categorical(values):
            others = [other for other in values if other != value]
            return others[int(rng.integers(len(others)))] if others else value


def cross_values(
    genes: Mapping[str, Gene],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """A child's value for each gene: SBX on numbers in a range, uniform crossover on choices."""
    return {name: _cross(gene, first[name], second[name], rng) for name, gene in genes.items()}


def mutate_values(
    genes: Mapping[str, Gene],
    values: Mapping[str, Any],
    probability: float,
    rng: np.random.Generator,
    scales: Mapping[str, float] = NO_SCALES,
) -> dict[str, Any]:
    """Vary each gene's value with `probability`: polynomial mutation on numbers in a range (a whole
    number always changes, by one at least), one step up or down on ordered choices, another value
    on unordered ones.

    A step beyond the first or last of ordered choices stays there: so two neighbours lead to each
    other equally often, and mutation alone favours no value. `scales` has factors on the steps of
    numbers in a range, by gene; 1 where it names none.
    """
    return {
        name: _mutate(gene, values[name], rng, scales.get(name, 1.0))
        if rng.random() < probability
        else values[name]
        for name, gene in genes.items()
    }


def moved_rate(
    genes: Mapping[str, Gene], parent: Mapping[str, Any], generation: int, rng: np.random.Generator
) -> dict[str, float]:
    """The learning rate of a child: that of the parent times a log-normal factor, whose spread is
    `RATE_STEP` over the root of the generation. Empty where rates are no range on a log scale."""
    gene = genes.get("learning_rate")
    if not isinstance(gene, Continuous) or not gene.log:
        return {}
    decades = RATE_STEP / math.sqrt(generation) * float(rng.standard_normal())
    step = decades / gene.width if gene.width else 0.0
    place = gene.encode(parent["learning_rate"]) + step
    return {"learning_rate": gene.decode(min(max(place, 0.0), 1.0))}


def step_scales(space: Space, generation: int) -> dict[str, float]:
    """By gene with a prior: the factor on its mutations' steps in that generation."""
    return {
        name: mutation_spread(around[1], generation, STEP_SPREAD) / STEP_SPREAD
        for name in space.priors
        if (around := space.around(name)) is not None
    }


def mutate(
    space: Space,
    genes: Genes,
    probability: float,
    rng: np.random.Generator,
    scales: Mapping[str, float] = NO_SCALES,
) -> Genes:
    """The same genes, of which each searched one is varied with `probability`."""
    return space.build(mutate_values(space.genes, space.values(genes), probability, rng, scales))
