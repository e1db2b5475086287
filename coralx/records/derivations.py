"""How an adapter is made from finished ones without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Operator = Literal["truncate", "compress", "scale", "drop", "soup"]


@dataclass(frozen=True)
class Derivation:
    """An operator, what it is applied to, and by which parameters; those of other operators are
    unset. A composition is a derivation from derived genomes."""

    operator: Operator
    sources: tuple[str, ...]
    """Ids of the genomes whose adapters it starts from; one, but for a soup."""
    rank: int | None = None
    """truncate, soup: the rank of every module."""
    share: float | None = None
    """compress: of the source's LoRA parameters that are kept, over all modules."""
    factor: float | None = None
    """scale: by what every update is multiplied."""
    count: int | None = None
    """drop: how many groups of modules, those worth least, are left out."""
    groups: tuple[str, ...] = ()
    """drop: which groups these turned out to be; empty before that is known."""
    weights: tuple[float, ...] = ()
    """soup: of each source, in their order, with sum 1."""


def derivation_json(derivation: Derivation | None) -> dict[str, Any] | None:
    """A derivation as reports have it: the operator, the genomes that it was applied to, and its
    own parameters. None for a genome that was trained."""
    if derivation is None:
        return None
    own: dict[str, Any] = {}
    match derivation.operator:
        case "truncate":
            own = {"rank": derivation.rank}
        case "compress":
            own = {"share": derivation.share}
        case "scale":
            own = {"factor": derivation.factor}
        case "drop":
            own = {"count": derivation.count, "groups": list(derivation.groups)}
        case "soup":
            own = {"rank": derivation.rank, "weights": list(derivation.weights)}
    return {"operator": derivation.operator, "from": list(derivation.sources), **own}
