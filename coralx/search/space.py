"""The search space: where each gene may lie, and its coordinate in the unit interval.

Continuous and ordered genes have a coordinate u in [0, 1] in which operators work; choices without
an order (lists of modules, switches) are only ever picked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coralx.config.schema import Config
from coralx.config.space import FloatChoices, FloatRange, IntChoices, IntRange
from coralx.records import Genes


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
    """The searched genes by name; all other genes are `fixed`."""

    genes: Mapping[str, Gene]
    fixed: Mapping[str, Any]

    def build(self, values: Mapping[str, Any]) -> Genes:
        """Genes from a value for each searched gene."""
        return Genes(**{**self.fixed, **values})

    def contains(self, genes: Genes) -> bool:
        """Whether every searched gene lies where it may, and every other is as fixed."""
        return all(
            gene.contains(getattr(genes, name)) for name, gene in self.genes.items()
        ) and all(getattr(genes, name) == value for name, value in self.fixed.items())

    def sample(self, count: int, rng: np.random.Generator) -> list[Genes]:
        """A Latin hypercube sample (McKay, Beckman and Conover 1979): each gene's range is cut
        into `count` equal strata, and each stratum is hit once."""
        columns = {
            name: (rng.permutation(count) + rng.random(count)) / count for name in self.genes
        }
        return [
            self.build({name: gene.decode(columns[name][i]) for name, gene in self.genes.items()})
            for i in range(count)
        ]


def space_of(config: Config) -> Space:
    """The search space of a config; genes left out are fixed at the training section's values."""
    configured = {
        name: getattr(config.search_space, name) for name in type(config.search_space).model_fields
    }
    genes = {name: _gene(gene) for name, gene in configured.items() if gene is not None}
    training = config.training
    fixed = {
        "weight_decay": training.weight_decay,
        "warmup_ratio": training.warmup_ratio,
        "batch_size": training.batch_size,
        "use_rslora": False,
        "use_dora": False,
    }
    return Space(genes, {name: value for name, value in fixed.items() if name not in genes})


def default_recipe(space: Space) -> Genes | None:
    """The common default (rank 16, alpha 16, learning rate 2e-4, all linear layers, no dropout),
    with the further genes as fixed; None where it lies outside the space."""
    recipe = space.build({name: getattr(Genes(), name) for name in space.genes})
    return recipe if space.contains(recipe) else None
