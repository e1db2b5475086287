"""Operators that make an adapter from finished ones without training.

They work on updates s B A, module by module; see `training.resize`. A result keeps the scaling s of
its (first) source in every module, whatever the module's rank. Heads, which are trained in full,
stay as they are, and are averaged in a soup: what lies between an untrained head and a trained one
is no classifier.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from coralx.errors import NotDerivable
from coralx.records.derivations import Derivation
from coralx.training.checkpoint_crossover import has_magnitudes, weighted_sum
from coralx.training.resize import A, B, Update, shrunk, singular_values, squared_norm

ROUNDING = 1e-6
"""A share of a squared norm that may be lost by rounding alone."""

Parameter = TypeVar("Parameter", int, float)


def check_sources(sources: Sequence[Update]) -> None:
    """Raise NotDerivable for sources that no operator can be applied to."""
    if any(has_magnitudes(source) for source in sources):
        raise NotDerivable(
            "its source uses DoRA, whose magnitudes make an update no product of two matrices"
        )
    if not all(source.stems for source in sources):
        raise NotDerivable("its source adapts no module of the base")


def derive(derivation: Derivation, sources: Sequence[Update]) -> Update:
    """What the operator makes of the sources; of `drop`, without its `groups`' modules, see
    `without`. Raises NotDerivable where that cannot be done."""
    source = sources[0]
    match derivation.operator:
        case "truncate":
            return truncated(source, _given("rank", derivation.rank))
        case "compress":
            return compressed(source, _given("share", derivation.share))
        case "scale":
            return scaled(source, _given("factor", derivation.factor))
        case "soup":
            weights = derivation.weights or (1.0 / len(sources),) * len(sources)
            return truncated(weighted_sum(sources, weights), _given("rank", derivation.rank))
        case "drop":
            raise ValueError("which groups are dropped is found by scoring")


def _given(name: str, value: Parameter | None) -> Parameter:
    if value is None:
        raise NotDerivable(f"its derivation has no {name}")
    return value


def truncated(source: Update, rank: int) -> Update:
    """Every module's best approximation of at most this rank; lower ranks stay."""
    return _cut(source, dict.fromkeys(source.stems, rank))


def compressed(source: Update, share: float) -> Update:
    """The singular directions, over all modules, that carry most for what they cost, as many as fit
    into a share of the source's LoRA parameters.

    Chosen greedily by squared singular value over parameters, (in + out) a direction: the update
    loses the squares of those that are left out. A module of which none is chosen is left out.
    """
    costs = {
        stem: source.weights[stem + A].shape[1] + source.weights[stem + B].shape[0]
        for stem in source.stems
    }
    directions = [
        (-(float(value) ** 2) / costs[stem], stem, place)
        for stem in source.stems
        for place, value in enumerate(
            singular_values(source.weights[stem + A], source.weights[stem + B])
        )
    ]
    left = share * sum(costs[stem] * rank for stem, rank in source.ranks.items())
    ranks = dict.fromkeys(source.stems, 0)
    for _, stem, _ in sorted(directions):
        if costs[stem] <= left and ranks[stem] < source.ranks[stem]:
            ranks[stem] += 1
            left -= costs[stem]
    if not any(ranks.values()):
        raise NotDerivable(f"not one singular direction fits into {share:.2g} of its source")
    return _cut(source, ranks)


def scaled(source: Update, factor: float) -> Update:
    """The update times `factor`."""
    return replace(
        source,
        weights={
            name: tensor * factor if name.endswith(B) else tensor
            for name, tensor in source.weights.items()
        },
    )


def without(source: Update, stems: Collection[str]) -> Update:
    """The update with nothing in these modules."""
    return _cut(source, dict.fromkeys(stems, 0))


def function_lost(derivation: Derivation, sources: Sequence[Update], result: Update) -> float:
    """The Frobenius norm of what was cut off, over that of what it was cut off from: the source, or
    a soup's mean at full rank; 0 to 1. Scaling cuts nothing off.

    Each operator that cuts keeps an orthogonal projection, so the squares of what is kept and of
    what is lost add up.
    """
    match derivation.operator:
        case "scale":
            return 0.0
        case "soup":
            weights = derivation.weights or (1.0 / len(sources),) * len(sources)
            whole = weighted_sum(sources, weights)
        case _:
            whole = sources[0]
    before, after = _squared_size(whole), _squared_size(result)
    lost = 1.0 - after / before if before else 0.0
    return math.sqrt(lost) if lost > ROUNDING else 0.0


def _squared_size(update: Update) -> float:
    """The squared Frobenius norm of the whole update."""
    weights = update.weights
    norms = (squared_norm(weights[stem + B], weights[stem + A]) for stem in update.stems)
    return update.scaling**2 * sum(norms)


def _cut(source: Update, ranks: Mapping[str, int]) -> Update:
    """Modules at their best approximations of lower ranks, and left out at rank 0; those that are
    not named, or that have no more than their rank, as they are."""
    weights = dict(source.weights)
    for stem, rank in ranks.items():
        down, up = weights[stem + A], weights[stem + B]
        if rank == 0:
            del weights[stem + A], weights[stem + B]
        elif rank < len(down):
            weights[stem + A], weights[stem + B], _ = shrunk(down, up, rank)
    cut = replace(source, weights=weights)
    return replace(cut, rank=max(cut.ranks.values()))
