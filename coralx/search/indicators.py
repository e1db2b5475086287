"""Indicators of one generation: how good and even a front is, how diverse its genomes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coralx.records.genomes import Genes
from coralx.search.pareto import Points, hypervolume
from coralx.search.space import Categorical, Continuous, Gene, Integer, Ordered, Space

MARGIN = 0.1
"""How far beyond the worst point the reference lies, as a share of the points' extent."""


def box_of(points: Points) -> tuple[Points, Points]:
    """The ideal point and the reference point that a set of points spans, both of shape
    (objectives,): the best of each objective, and the worst with a margin behind it."""
    ideal, worst = points.min(axis=0), points.max(axis=0)
    extent = worst - ideal
    # An objective in which all points are equal needs an extent, too: its own size.
    extent = np.where(extent > 0, extent, np.maximum(np.abs(worst), 1.0))
    return ideal, worst + MARGIN * extent


def relative_hypervolume(points: Points, box: tuple[Points, Points]) -> float:
    """Hypervolume (Zitzler and Thiele 1999) as a share of the box between ideal and reference
    point. Greater is better; above 1 where points are better than the ideal."""
    ideal, reference = box
    size = reference - ideal
    return hypervolume((points - ideal) / size, np.ones_like(size))


def spacing(points: Points, box: tuple[Points, Points]) -> float | None:
    """How evenly a front is spread (Schott 1995): the standard deviation of each point's distance
    to its nearest neighbour, in the L1 norm and in units of the box. 0 is even; None below three
    points."""
    if len(points) < 3:
        return None
    scaled = points / (box[1] - box[0])
    distances = np.abs(scaled[:, None] - scaled[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).std(ddof=1))


def diversity(space: Space, genes: Sequence[Genes]) -> float:
    """Mean distance of all pairs, 0 to 1: over the searched genes, the mean of the distance in the
    unit interval for numbers and of 0 or 1 for choices without an order (Gower 1971)."""
    count = len(genes)
    if count < 2 or not space.genes:
        return 0.0
    tables = []
    for name, gene in space.genes.items():
        values = [getattr(one, name) for one in genes]
        tables.append(_pair_distances(gene, values))
    total = np.mean(np.asarray(tables), axis=0).sum()
    return float(total / (count * (count - 1)))  # both orders of a pair are in the sum


def _pair_distances(gene: Gene, values: Sequence[Any]) -> Points:
    """The distance of each pair of a gene's values, shape (genomes, genomes)."""
    if isinstance(gene, Categorical):
        numbers = [values.index(value) for value in values]  # equal where the values are equal
        labels = np.asarray(numbers)
        differ: Points = (labels[:, None] != labels[None]).astype(np.float64)
        return differ
    coordinates = np.asarray([_coordinate(gene, value) for value in values])
    distances: Points = np.abs(coordinates[:, None] - coordinates[None])
    return distances


def _coordinate(gene: Gene, value: float) -> float:
    """A number's place in the unit interval; 0 or 1 for one that lies outside the gene's range."""
    match gene:
        case Ordered(values):
            return float(np.interp(value, values, np.linspace(0.0, 1.0, len(values))))
        case Continuous():
            return gene.encode(min(max(value, gene.low), gene.high))
        case Integer():
            return gene.encode(min(max(round(value), gene.low), gene.high))
        case _:
            raise TypeError("a choice without an order has no coordinate")
