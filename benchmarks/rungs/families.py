"""Families of synthetic learning curves, by what early figures say about late ones.

Every table is a grid of 252 LoRA configurations: rank, learning rate, batch size, and the adapted
modules as a choice without an order. Its *quality* is a smooth response over the genes plus a part
of each configuration's own, in standard deviations of full results, lower is better. A family says
how curves get there: `mechanism(space, strength, rng)` returns them with shape (configurations,
CHECKPOINTS), and their last column is the quality but for what the family says. A seed draws the
response, the own parts and the noise anew.

Families for tuning may be looked at while an algorithm is made; those held out are for judging it
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from curve_table import CHOICE, Gene, Table
from numpy.typing import NDArray

from coralx.rng import generator

Floats = NDArray[np.float64]

RANKS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
LEARNING_RATES = (3e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 4e-3)
BATCH_SIZES = (8.0, 32.0)
MODULES = ("query+value", "attention", "all-linear")
GENES = (
    Gene("lora_rank", RANKS, is_ordered=True),
    Gene("learning_rate", LEARNING_RATES, is_ordered=True),
    Gene("batch_size", BATCH_SIZES, is_ordered=True),
    Gene(CHOICE, MODULES, is_ordered=False),
)
POINTS = tuple(product(*(range(len(gene.values)) for gene in GENES)))

CHECKPOINTS = 40
TIME: Floats = np.arange(1, CHECKPOINTS + 1) / CHECKPOINTS
START = 5.0
"""Where curves begin, in standard deviations above the mean full result."""

LEVEL = 15.0
"""Added to every figure, so that losses are above 0."""

SMOOTH, ROUGH = 0.3, 0.9
"""Shares of the variance of full results that the genes do not explain."""


@dataclass(frozen=True)
class Space:
    """What a seed draws, one entry a configuration; `learning_rate` and `modules` are genes."""

    quality: Floats
    decoy: Floats
    """A second quality over the same genes that has nothing to do with the first."""
    learning_rate: Floats
    """From -1 to 1, on the logarithm's scale."""
    modules: NDArray[np.int64]


Mechanism = Callable[[Space, float, np.random.Generator], Floats]


@dataclass(frozen=True)
class Family:
    """A mechanism at one strength."""

    mechanism: Mechanism
    strength: float
    is_held_out: bool = False
    ranks_truly: bool = False
    """Whether its early figures rank what comes later as well as they can."""
    own_share: float = SMOOTH

    @property
    def name(self) -> str:
        """As in `crossing 0.6`."""
        rough = ", rough" if self.own_share == ROUGH else ""
        return f"{self.mechanism.__name__} {self.strength:g}{rough}".replace("_", " ")


def table_of(family: Family, seed: int) -> Table:
    """The family's table that a seed draws."""
    rng = generator(seed, f"rung family {family.name}")
    curves = LEVEL + family.mechanism(_space(rng, family.own_share), family.strength, rng)
    costs = tuple(range(1, CHECKPOINTS + 1))
    return Table(
        genes=GENES,
        points=POINTS,
        curves=tuple(map(tuple, curves.tolist())),
        costs=(costs,) * len(POINTS),
        parameters=tuple(RANKS[point[0]] for point in POINTS),
    )


def _space(rng: np.random.Generator, own_share: float) -> Space:
    rank, rate, batch = (
        np.asarray([2 * p[place] / (len(GENES[place].values) - 1) - 1 for p in POINTS])
        for place in range(3)
    )
    modules = np.asarray([point[3] for point in POINTS])
    smooth = [_standard(_response(rank, rate, batch, modules, rng)) for _ in range(2)]
    quality, decoy = (
        _standard((1 - own_share) ** 0.5 * part + own_share**0.5 * rng.normal(size=len(POINTS)))
        for part in smooth
    )
    return Space(quality, decoy, rate, modules)


def _response(
    rank: Floats, rate: Floats, batch: Floats, modules: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """The best learning rate lies inside its range, moves with batch size and modules, and matters
    most; more rank helps less and less."""
    best_rate = rng.uniform(-0.3, 0.5) + 0.15 * batch + rng.normal(0, 0.15, len(MODULES))[modules]
    return np.asarray(
        rng.uniform(1.5, 3.0) * (rate - best_rate) ** 2
        + rng.uniform(0.2, 0.8) * np.exp(-1.5 * (rank + 1))
        + rng.normal(0, 0.1) * rank * rate
        + rng.normal(0, 0.1) * batch
        + rng.normal(0, 0.3, len(MODULES))[modules]
    )


def _standard(values: Floats) -> Floats:
    scaled: Floats = (values - values.mean()) / values.std()
    return scaled


def _to_go(speed: Floats | float, time: Floats = TIME) -> Floats:
    """The share of the way from start to end that is left: a power law, 1 at the start and 0 at
    the end; shape (configurations or 1, checkpoints)."""
    speeds = np.reshape(speed, (-1, 1))
    end = 21.0**-speeds
    left: Floats = ((1 + 20 * time) ** -speeds - end) / (1 - end)
    return left


def _falling(end: Floats, to_go: Floats) -> Floats:
    return end[:, None] + (START - end[:, None]) * to_go


def _noise(rng: np.random.Generator, scale: Floats | float, fading: Floats | float = 1.0) -> Floats:
    """Independent noise at each checkpoint; none at the last, which is the full result."""
    noise: Floats = np.asarray(scale) * fading * rng.normal(size=(len(POINTS), CHECKPOINTS))
    noise[:, -1] = 0
    return noise


def ranks_truly(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """All fall alike; `strength` is the noise of a figure."""
    return _falling(space.quality, _to_go(1.0)) + _noise(rng, strength)


def ranks_moderately(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Each curve has a lead of its own that fades with time, and some noise."""
    lead = rng.normal(0, strength, (len(POINTS), 1))
    return _falling(space.quality, _to_go(1.0)) + lead * (1 - TIME) + _noise(rng, 0.1)


def early_noise(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Until the share `strength` of the budget a figure is noise alone; then all fall alike."""
    later = np.clip((TIME - strength) / (1 - strength), 0, None)
    return _falling(space.quality, _to_go(1.0, later)) + _noise(rng, 0.3, later == 0)


def crossing(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """The better the end, the slower the way: by `strength` decades of speed for each three
    standard deviations."""
    speed = 10 ** (strength * space.quality / 3 + rng.normal(0, 0.1, len(POINTS)))
    return _falling(space.quality, _to_go(speed)) + _noise(rng, 0.05)


def reversed_early(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Early figures rank the wrong way round, until the share `strength` of the budget."""
    sign = np.clip((TIME - strength) / (1 - strength), -0.6, None)
    return START * _to_go(1.0) + space.quality[:, None] * sign + _noise(rng, 0.3, 1 - TIME)


def diverging(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """All fall alike, but a share `strength` explodes at some time, high learning rates first."""
    risk = space.learning_rate + rng.normal(0, 0.5, len(POINTS))
    explodes = risk >= np.quantile(risk, 1 - strength)
    begins = rng.uniform(0, 1, (len(POINTS), 1))
    rise = 6 * np.clip((TIME - begins) / 0.05, 0, 1) * explodes[:, None]
    return _falling(space.quality, _to_go(1.0)) + rise + _noise(rng, 0.05)


def slow_starters(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Flat, then sudden; the better the end, the later, at the share `strength` on average."""
    placed = np.argsort(np.argsort(-space.quality)) / len(POINTS)
    begins = strength * (0.4 + 1.2 * placed) + rng.normal(0, 0.05, len(POINTS))
    gone = _logistic((TIME - np.clip(begins, 0, 0.9)[:, None]) / 0.03)
    return _falling(space.quality, 1 - gone / gone[:, -1:]) + _noise(rng, 0.1)


def early_overfitting(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Fast learners are best early and then get worse, by `strength` on average: the more, the
    worse they end."""
    worse = strength * np.exp(0.5 * space.quality + rng.normal(0, 0.3, len(POINTS)))
    since = np.clip((TIME - 0.15) / 0.85, 0, None)
    fitted = _falling(space.quality - worse, _to_go(1.5))
    return fitted + worse[:, None] * since + _noise(rng, 0.1)


def heteroscedastic(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Noise of very different size: much at high learning rates, and fading with time."""
    scale = strength * np.exp(space.learning_rate + rng.normal(0, 0.5, len(POINTS)))
    scale = np.minimum(scale, 2.0)
    return _falling(space.quality, _to_go(1.0)) + _noise(rng, scale[:, None], 1 - TIME)


def ties(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Figures in steps of `strength`, as of a metric on few rows: many are equal. Full results are
    in steps of a fifth of it."""
    curves = _falling(space.quality, _to_go(1.0)) + _noise(rng, 0.05)
    steps = np.where(np.arange(CHECKPOINTS) == CHECKPOINTS - 1, strength / 5, strength)
    stepped: Floats = np.round(curves / steps) * steps
    return stepped


def learning_rate_first(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Early figures tell the learning rate: the higher, the faster; by `strength` decades of speed
    over its range."""
    speed = 10 ** (strength * space.learning_rate / 2 + rng.normal(0, 0.05, len(POINTS)))
    return _falling(space.quality, _to_go(speed)) + _noise(rng, 0.05)


def two_sorts(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """One choice of modules ends `strength` better and learns ten times more slowly; among equals
    figures rank truly."""
    slow = space.modules == len(MODULES) - 1
    speed = np.where(slow, 0.2, 2.0)
    return _falling(space.quality - strength * slow, _to_go(speed)) + _noise(rng, 0.05)


def late_reshuffle(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Until the share `strength` of the budget figures rank something else, reliably; then, as the
    learning rate decays, the truth comes out."""
    truth = np.clip((TIME - strength) / (1 - strength), 0, None)
    seen = space.quality[:, None] * truth + space.decoy[:, None] * (1 - truth)
    return START * _to_go(1.0) + seen + _noise(rng, 0.1)


def double_descent(space: Space, strength: float, rng: np.random.Generator) -> Floats:
    """Figures rank truly but for the middle, where the best pass through a hump of `strength`."""
    hump = np.exp(-(((TIME - 0.5) / 0.15) ** 2))
    height = strength * (1 + np.tanh(-space.quality[:, None]))
    return _falling(space.quality, _to_go(1.0)) + height * hump + _noise(rng, 0.1)


def _logistic(values: Floats) -> Floats:
    shares: Floats = 1 / (1 + np.exp(-np.clip(values, -50, 50)))
    return shares


TUNING = (
    Family(ranks_truly, 0.05, ranks_truly=True),
    Family(ranks_truly, 0.15, ranks_truly=True),
    Family(ranks_moderately, 0.5),
    Family(ranks_moderately, 1.5),
    Family(early_noise, 0.2),
    Family(early_noise, 0.6),
    Family(crossing, 0.4),
    Family(crossing, 1.0),
    Family(reversed_early, 0.3),
    Family(reversed_early, 0.7),
    Family(diverging, 0.1, ranks_truly=True),
    Family(diverging, 0.3),
    Family(ranks_moderately, 1.0, own_share=ROUGH),
    Family(early_noise, 0.4, own_share=ROUGH),
)
_FURTHER = tuple(
    Family(mechanism, strength, is_held_out=True, ranks_truly=truly)
    for mechanism, strength, truly in (
        (ranks_truly, 0.02, True),
        (ranks_truly, 0.1, True),
        (crossing, 0.7, False),
        (reversed_early, 0.5, False),
        (slow_starters, 0.2, False),
        (slow_starters, 0.5, False),
        (early_overfitting, 0.5, True),
        (early_overfitting, 2.0, False),
        (heteroscedastic, 0.2, False),
        (heteroscedastic, 0.7, False),
        (ties, 0.3, True),
        (ties, 1.5, False),
        (learning_rate_first, 0.5, False),
        (learning_rate_first, 1.5, False),
        (two_sorts, 0.5, False),
        (two_sorts, 1.5, False),
        (late_reshuffle, 0.4, False),
        (late_reshuffle, 0.8, False),
        (double_descent, 1.0, False),
    )
)
HELD_OUT = (
    *_FURTHER,
    Family(ranks_truly, 0.1, is_held_out=True, ranks_truly=True, own_share=ROUGH),
    Family(reversed_early, 0.5, is_held_out=True, own_share=ROUGH),
    Family(learning_rate_first, 1.0, is_held_out=True, own_share=ROUGH),
)
FAMILIES = TUNING + HELD_OUT
