"""The search space: the range or choices of each gene, and its coordinate in the unit interval.

Numbers in a range have a coordinate u in [0, 1], on which operators work. Ordered choices move by
one; those without an order (lists of modules, switches) are only ever picked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coralx.config.gene_forms import FloatChoices, FloatRange, IntChoices, IntRange
from coralx.config.schema import Config
from coralx.records.genomes import GENE_NAMES, Genes
from coralx.search.priors import (
    INFORMED,
    Prior,
    quantile,
    uniform_rows,
    weight,
)


@dataclass(frozen=True)
class Continuous:
    """A float in [low, high], on a log scale if `log`."""

    low: float
    high: float
    log: bool

    def decode(self, u: float) -> float:
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        # Six digits: more than a setting needs, and short enough to be read.
        return min(max(float(f"{value:.6g}"), self.low), self.high)

    def encode(self, value: float) -> float:
        if self.log:
            span = math.log(self.high) - math.log(self.low)
            return (math.log(value) - math.log(self.low)) / span
        return (value - self.low) / (self.high - self.low)

    def contains(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def nearest(self, value: float) -> float:
        """The value in the range that is nearest to another."""
        return min(max(value, self.low), self.high)

    @property
    def width(self) -> float:
        """In decades on a log scale, else in the gene's own unit, as spreads of priors are."""
        return math.log10(self.high / self.low) if self.log else self.high - self.low


@dataclass(frozen=True)
class Integer:
    """A whole number in [low, high], on a log scale if `log`; all values equally wide in u."""

    low: int
    high: int
    log: bool

    def decode(self, u: float) -> int:
        if self.log:
            value = math.exp(
                math.log(self.low - 0.5) + u * math.log((self.high + 0.5) / (self.low - 0.5))
            )
        else:
            value = self.low - 0.5 + u * (self.high - self.low + 1)
        return min(max(round(value), self.low), self.high)

    def encode(self, value: float) -> float:
        if self.log:
            return math.log(value / (self.low - 0.5)) / math.log(
                (self.high + 0.5) / (self.low - 0.5)
            )
        return (value - self.low + 0.5) / (self.high - self.low + 1)

    def contains(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def nearest(self, value: float) -> int:
        return min(max(round(value), self.low), self.high)

    @property
    def width(self) -> float:
        low, high = self.low - 0.5, self.high + 0.5
        return math.log10(high / low) if self.log else high - low


@dataclass(frozen=True)
class Ordered:
    """Numbers to choose from, ascending: neighbours are similar."""

    values: tuple[float | int, ...]

    def decode(self, u: float) -> float | int:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def encode(self, value: float) -> float:
        """That of the nearest choice."""
        return (self.values.index(self.nearest(value)) + 0.5) / len(self.values)

    def contains(self, value: Any) -> bool:
        return value in self.values

    def nearest(self, value: float) -> float | int:
        return min(self.values, key=lambda choice: abs(choice - value))

    @property
    def width(self) -> float:
        """In steps."""
        return len(self.values)


@dataclass(frozen=True)
class Categorical:
    """Values without an order."""

    values: tuple[Any, ...]

    def decode(self, u: float) -> Any:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def nearest(self, value: Any) -> Any:
        """The value itself, or where it is none of them the first."""
        return value if value in self.values else self.values[0]

    def contains(self, value: Any) -> bool:
        return value in self.values


Gene = Continuous | Integer | Ordered | Categorical


def _gene(configured: Any) -> Gene:
    if isinstance(configured, FloatRange):
        return Continuous(configured.low, configured.high, configured.log)
    if isinstance(configured, IntRange):
        return Integer(configured.low, configured.high, configured.log)
    values = tuple(dict.fromkeys(configured.choices))
    if isinstance(configured, IntChoices | FloatChoices):
        return Ordered(tuple(sorted(values)))
    return Categorical(values)


@dataclass(frozen=True)
class Space:
    """The genes that are searched, and the recipe that gives all others."""

    genes: Mapping[str, Gene]
    common: Genes
    priors: Mapping[str, Prior] = field(default_factory=dict)
    """By gene, of those that have one."""

    def build(self, values: Mapping[str, Any]) -> Genes:
        """Genes from a value for each searched gene."""
        return replace(self.common, **values)

    def values(self, genes: Genes) -> dict[str, Any]:
        """The value of each searched gene."""
        return {name: getattr(genes, name) for name in self.genes}

    def contains(self, genes: Genes) -> bool:
        """Whether every gene lies in its range, or is one of its choices."""
        return all(self.contains_gene(name, getattr(genes, name)) for name in GENE_NAMES)

    def contains_gene(self, name: str, value: Any) -> bool:
        """The same for one gene; a gene that is not searched must be as in the common recipe."""
        gene = self.genes.get(name)
        return bool(value == getattr(self.common, name)) if gene is None else gene.contains(value)

    def nearest(self, genes: Genes) -> Genes:
        """The same genes with a rank of the space: a derived adapter may have another one."""
        match self.genes.get("rank"):
            case Ordered(values):
                rank = min(values, key=lambda value: abs(value - genes.rank))
            case Integer(low, high):
                rank = min(max(genes.rank, low), high)
            case _:
                rank = self.common.rank
        return replace(genes, rank=int(rank))

    def sample(self, count: int, rng: np.random.Generator) -> list[Genes]:
        """A Latin hypercube sample (McKay, Beckman and Conover 1979): each gene's range is cut
        into `count` equal strata, and each stratum is hit once. Of a gene with a prior, three of
        four lie in strata of equal probability by it, and one of four in strata of the range."""
        columns = {name: self._column(name, count, rng) for name in self.genes}
        sample = []
        for index in range(count):
            values = {name: gene.decode(columns[name][index]) for name, gene in self.genes.items()}
            sample.append(self.build(values))
        return sample

    def draw(self, generation: int, rng: np.random.Generator) -> Genes:
        """One configuration: from the priors with the probability that they have left in that
        generation, else from anywhere."""
        is_informed = bool(self.priors) and rng.random() < INFORMED * weight(generation)
        return (self if is_informed else self.without_priors()).sample(1, rng)[0]

    def without_priors(self) -> Space:
        """The same space, everywhere equally likely."""
        return Space(self.genes, self.common)

    def with_high_ranks(self) -> Space:
        """The same space without the lower half of the ranks that are searched; all of it where
        they have a prior."""
        match self.genes.get("rank"):
            case Ordered(values) if "rank" not in self.priors:
                rank: Gene = Ordered(values[len(values) // 2 :])
            case Integer(low, high, log) as gene if "rank" not in self.priors:
                rank = Integer(max(low, gene.decode(0.5)), high, log)
            case _:
                return self
        return Space({**self.genes, "rank": rank}, self.common, self.priors)

    def around(self, name: str) -> tuple[float, float] | None:
        """Centre and spread of a gene's prior in the unit of its range; None without one."""
        gene, prior = self.genes.get(name), self.priors.get(name)
        if gene is None or prior is None or isinstance(gene, Categorical):
            return None
        return min(max(gene.encode(prior.center), 0.0), 1.0), prior.spread / gene.width

    def _column(self, name: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """A sample's coordinates in one gene."""
        around = self.around(name)
        if around is None:
            return _strata(count, rng)
        column, ignoring = np.empty(count), uniform_rows(count)
        following = [row for row in range(count) if row not in ignoring]
        column[following] = [quantile(*around, share) for share in _strata(len(following), rng)]
        column[ignoring] = _strata(len(ignoring), rng)
        return column


def _strata(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A number from each of `count` equal parts of [0, 1), in random order."""
    return (rng.permutation(count) + rng.random(count)) / max(count, 1)


def space_of(config: Config) -> Space:
    """The search space of a config.

    Its common recipe is rank 16, alpha 16, learning rate 2e-4, all linear layers and no dropout,
    with the other genes as in the section `training`.
    """
    configured = {
        name: getattr(config.search_space, name) for name in type(config.search_space).model_fields
    }
    genes = {name: _gene(gene) for name, gene in configured.items() if gene is not None}
    training = config.training
    common = Genes(
        weight_decay=training.weight_decay,
        warmup_ratio=training.warmup_ratio,
        batch_size=training.batch_size,
    )
    priors = {
        name: Prior(gene.prior, gene.spread, gene.source or "the config")
        for name, gene in configured.items()
        if getattr(gene, "prior", None) is not None
    }
    return Space(genes, common, priors)
