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

from coralx.config.gene_forms import FloatChoices, FloatRange, IntChoices, IntRange
from coralx.config.schema import Config
from coralx.errors import ConfigError
from coralx.records.genomes import GENE_NAMES, Genes
from coralx.search.priors import Prior
from coralx.text import counted


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

    def encode(self, value: int) -> float:
        if self.log:
            return math.log(value / (self.low - 0.5)) / math.log(
                (self.high + 0.5) / (self.low - 0.5)
            )
        return (value - self.low + 0.5) / (self.high - self.low + 1)

    def contains(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Ordered:
    """Numbers to choose from, ascending: neighbours are similar."""

    values: tuple[float | int, ...]

    def decode(self, u: float) -> float | int:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def contains(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Categorical:
    """Values without an order."""

    values: tuple[Any, ...]

    def decode(self, u: float) -> Any:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

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

    def sample(self, count: int, rng: np.random.Generator) -> list[Genes]:
        """A Latin hypercube sample (McKay, Beckman and Conover 1979): each gene's range is cut
        into `count` equal strata, and each stratum is hit once."""
        columns = {
            name: (rng.permutation(count) + rng.random(count)) / count for name in self.genes
        }
        sample = []
        for index in range(count):
            values = {name: gene.decode(columns[name][index]) for name, gene in self.genes.items()}
            sample.append(self.build(values))
        return sample


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


def default_recipe(space: Space) -> Genes | None:
    """The common recipe; None where it lies outside the space."""
    return space.common if space.contains(space.common) else None


def own_recipes(config: Config, space: Space) -> list[Genes]:
    """The user's `evolution.seed_genomes`, completed by the common recipe.

    Raises ConfigError naming every gene that lies outside the space, where it could not be varied.
    """
    recipes, problems = [], []
    count, size = len(config.evolution.seed_genomes), config.evolution.population_size
    if count > size:
        problems.append(
            f"evolution.seed_genomes: {counted(count, 'recipe')}, but "
            f"evolution.population_size is {size}"
        )
    for place, seed in enumerate(config.evolution.seed_genomes):
        given = {k: v for k, v in seed.model_dump().items() if v is not None}
        rank = given.get("rank", space.common.rank)
        if "alpha" in given:
            given["alpha_ratio"] = given.pop("alpha") / rank
        recipe = replace(space.common, **given)
        recipes.append(recipe)
        for name in GENE_NAMES:
            value = getattr(recipe, name)
            if not space.contains_gene(name, value):
                problems.append(
                    f"evolution.seed_genomes.{place}.{name}: {value!r} lies outside "
                    f"search_space.{name} ({_extent(space, name)})"
                )
    if problems:
        raise ConfigError("config", problems, "Widen search_space, or change the recipe.")
    return recipes


def _extent(space: Space, name: str) -> str:
    """The values that a gene may have, in words."""
    gene = space.genes.get(name)
    if gene is None:
        return f"not searched, fixed at {getattr(space.common, name)!r}"
    if isinstance(gene, Continuous | Integer):
        return f"{gene.low:g} to {gene.high:g}"
    return ", ".join(str(value) for value in gene.values)
