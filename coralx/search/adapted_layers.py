"""Which of a base's layers a genome adapts: all of them, or those at the top.

A layer is known by the names of the linear modules in it, so that a footprint is enough to tell.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from coralx.records.genomes import ALL_LAYERS, ALL_LINEAR, Genes, Layers

SHARES = {"top-half": 2, "top-quarter": 4}
"""By name: the number by which the number of layers is divided, and rounded up."""


def stack_of(linear: Iterable[str], count: int) -> str | None:
    """What the names of a base's layers begin with, such as `bert.encoder.layer`, where it has
    `count` of them; None where its modules do not lie in one list of so many layers."""
    numbers = defaultdict[str, set[int]](set)
    for name in linear:
        place = place_of(name)
        if place is not None:
            numbers[place[0]].add(place[1])
    stacks = [stack for stack, found in numbers.items() if max(found) == count - 1]
    return stacks[0] if len(stacks) == 1 else None


def place_of(name: str) -> tuple[str, int] | None:
    """The list that a module lies in by its full name, the outermost if it lies in several, and its
    place there; None where it lies in none."""
    parts = name.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    return None if place is None else (".".join(parts[:place]), int(parts[place]))


def adapted_count(layers: Layers, count: int) -> int:
    """How many of `count` layers are adapted; may be more than there are."""
    if layers == ALL_LAYERS:
        return count
    return layers if isinstance(layers, int) else math.ceil(count / SHARES[layers])


def lowest_layer(layers: Layers, count: int) -> int:
    """The number of the lowest adapted layer of `count`, from 0: those below are as in the base."""
    return max(0, count - adapted_count(layers, count))


def adapted_modules(linear: Sequence[str], genes: Genes, count: int) -> list[str]:
    """Those of a base's linear modules that a genome adapts, as PEFT matches target modules: by
    whole parts at the name's end. With `all` layers also what lies outside of them, like a pooler.
    """
    targets = genes.target_modules
    named = [
        name
        for name in linear
        if targets == ALL_LINEAR
        or any(name == suffix or name.endswith("." + suffix) for suffix in targets)
    ]
    if genes.layers == ALL_LAYERS:
        return named
    stack, lowest = stack_of(linear, count), lowest_layer(genes.layers, count)
    places = ((name, place_of(name)) for name in named)
    return [name for name, place in places if place and place[0] == stack and place[1] >= lowest]
