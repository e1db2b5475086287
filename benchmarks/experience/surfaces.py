"""Final losses as a function of genes: recorded ones, and families that are made up."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coralx.config import parse_config
from coralx.records.experience import Likeness
from coralx.records.genomes import Genes
from coralx.rng import generator
from coralx.search.space import Space, space_of

DIVERGES = 3e-3
"""The rate of the recorded sweep at which a missing combination diverged."""

APART: dict[Likeness, float] = {
    "same base and data": 0.05,
    "same base": 0.2,
    "same kind": 0.4,
}
"""By how many decades the best rates of two made-up tasks differ (a standard deviation)."""

NOISE = 0.003
"""Of a made-up loss, as a share of it: what another seed changes."""


@dataclass(frozen=True)
class Surface:
    """What training with given genes ends with; None where it diverges."""

    name: str
    loss: Callable[[Genes], float | None]
    best: float


def space(prior: float | None) -> Space:
    """The space that is searched, with or without a prior on the learning rate."""
    rate = {"low": 1e-5, "high": 5e-3, "log": True}
    if prior is not None:
        rate |= {"prior": prior, "spread": 0.7}
    section = {
        "rank": {"choices": [1, 2, 4, 16, 64, 128]},
        "learning_rate": rate,
    }
    return space_of(parse_config({"search_space": section}, "replay"))


def recorded(path: Path) -> list[tuple[int, Surface]]:
    """A surface for each model of the sweep, with the model's width.

    A rate counts as the nearest that was tried with the nearest rank (on log scales). Combinations
    that are missing at the highest rate diverged.
    """
    return [
        (width, Surface(model, _looked_up(table), min(table.values())))
        for (model, width), table in sorted(_tables(path).items())
    ]


def _tables(path: Path) -> dict[tuple[str, int], dict[tuple[int, float], float]]:
    """The loss by rank and rate, by model and its width."""
    tables: dict[tuple[str, int], dict[tuple[int, float], float]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = row["base_model"], int(row["hidden_size"])
            place = int(row["lora_rank"]), float(row["learning_rate"])
            tables[key][place] = float(row["test_nll"])
    return tables


def between(path: Path) -> list[Surface]:
    """A surface for each model of the sweep, whose loss between rates that were tried is linear in
    the logarithm; from halfway to the rate that diverged on, it diverges."""
    return [
        Surface(model, _interpolated(table), min(table.values()))
        for (model, _), table in sorted(_tables(path).items())
    ]


def _interpolated(table: dict[tuple[int, float], float]) -> Callable[[Genes], float | None]:
    def loss(genes: Genes) -> float | None:
        rank = min({rank for rank, _ in table}, key=lambda r: abs(math.log(r / genes.rank)))
        tried = sorted((math.log(rate), loss) for (r, rate), loss in table.items() if r == rank)
        rates, losses = zip(*tried, strict=True)
        rate = math.log(genes.learning_rate)
        diverges = rate > max(rates[-1], (math.log(2e-3) + math.log(DIVERGES)) / 2)
        return None if diverges else float(np.interp(rate, rates, losses))

    return loss


def _looked_up(table: dict[tuple[int, float], float]) -> Callable[[Genes], float | None]:
    def loss(genes: Genes) -> float | None:
        rank = min({rank for rank, _ in table}, key=lambda r: abs(math.log(r / genes.rank)))
        rates = {rate for tried, rate in table if tried == rank} | {DIVERGES}
        rate = min(rates, key=lambda r: abs(math.log(r / genes.learning_rate)))
        return table.get((rank, rate))

    return loss


def made_up_pair(likeness: Likeness, rng: np.random.Generator) -> tuple[Surface, Surface]:
    """An earlier task and a new one: valleys over the learning rate, whose best rates differ as two
    tasks of that likeness do, about a rate that differs from pair to pair by half a decade."""
    center = -3.3 + 0.5 * rng.standard_normal()
    new, earlier = center, center + APART[likeness] * rng.standard_normal()
    return _valley(earlier, rng), _valley(new, rng)


def pure_noise(seed: int) -> Surface:
    """A task on which genes make no difference, so that chance leads the earlier search."""

    def loss(genes: Genes) -> float | None:
        return 1 + NOISE * float(generator(seed, "pure noise", 0, repr(genes)).standard_normal())

    return Surface("noise", loss, 1.0)


def misleading(rng: np.random.Generator) -> tuple[Surface, Surface]:
    """An earlier task whose best rate is a decade off."""
    center = -3.3 + 0.25 * rng.standard_normal()
    return _valley(center + (1 if rng.random() < 0.5 else -1), rng), _valley(center, rng)


def _valley(best: float, rng: np.random.Generator) -> Surface:
    width, ranks, dropout = rng.uniform(0.6, 1.2), rng.uniform(0.01, 0.04), rng.uniform(0, 0.3)
    seed = int(rng.integers(2**32))

    def loss(genes: Genes) -> float | None:
        away = math.log10(genes.learning_rate) - best
        if away > 0.9:
            return None
        noise = generator(seed, "noise", 0, repr(genes)).standard_normal()
        penalty = 0.2 * (away / width) ** 2 + ranks / genes.rank + 0.1 * dropout * genes.dropout
        return float((1 + penalty) * (1 + NOISE * noise))

    return Surface(f"best rate {10**best:.2g}", loss, 1.0 + ranks / 128)
