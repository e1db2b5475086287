"""Which priors a search goes by, for reports and for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from coralx.search.space import Continuous, Gene, Integer, Ordered, Space


def priors_json(space: Space) -> dict[str, Any]:
    """By gene: `center`, `spread` and `source`."""
    return {name: asdict(prior) for name, prior in space.priors.items()}


def prior_lines(space: Space) -> list[str]:
    """A line for each gene that has a prior."""
    return [
        f"prior: {name} about {prior.center:g}, spread {_spread(space.genes[name], prior.spread)} "
        f"(source: {prior.source})"
        for name, prior in space.priors.items()
    ]


def _spread(gene: Gene, spread: float) -> str:
    """With its unit."""
    if isinstance(gene, Continuous | Integer) and gene.log:
        return f"{spread:g} decades"
    return f"{spread:g} steps" if isinstance(gene, Ordered) else f"{spread:g}"
