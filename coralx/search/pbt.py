"""Population-based training (Jaderberg et al. 2017): the poorest genomes of a stage are replaced by
copies of its best, with their weights and with other hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from coralx.records.genomes import Genes, Genome
from coralx.rng import generator
from coralx.search.nsga2 import REPAIR_ATTEMPTS, genome_id
from coralx.search.operators import mutate
from coralx.search.space import Continuous, Space

EXPLORED = ("learning_rate", "dropout", "weight_decay")
"""The genes that may change while an adapter trains. The others decide its shape and the length of
its training."""

FACTORS = (0.8, 1.2)
"""Numbers are perturbed by one of these (Jaderberg et al. 2017, section 4.1.1)."""


def explored_space(space: Space) -> Space:
    """The part of the space in which copies are mutated."""
    genes = {name: gene for name, gene in space.genes.items() if name in EXPLORED}
    return Space(genes, space.common)


def exploit(
    best_first: Sequence[Genome],
    seen: Collection[Genes],
    space: Space,
    *,
    quantile: Fraction | float,
    place: int,
    index: int,
    seed: int,
) -> dict[str, Genome]:
    """Copies by the id of the genome that each replaces. `best_first` are the genomes that would go
    on to the stage at `place`.

    The poorest floor(`quantile` x genomes) are replaced by copies of as many of the best, each
    drawn at random, which enter stage `place`. Numbers are multiplied by 0.8 or 1.2, choices move a
    step. No copy has genes that are among `seen`; where that cannot be achieved, there is no copy.
    Copies are numbered from `index` within their generation.
    """
    count = math.floor(quantile * len(best_first))
    part = explored_space(space)
    copies: dict[str, Genome] = {}
    taken = set(seen)
    for poor in best_first[len(best_first) - count :]:
        number = index + len(copies)
        rng = generator(seed, "exploit", poor.generation, number)
        model = best_first[int(rng.integers(count))]
        genes = _perturbed(part, model.genes, taken, rng)
        if genes is None:
            continue
        taken.add(genes)
        copies[poor.id] = Genome(
            id=genome_id(seed, model.generation, number),
            generation=model.generation,
            genes=genes,
            parents=(model.id,),
            continues=model.id,
            enters=place,
            bracket=model.bracket,
        )
    return copies


def _perturbed(
    part: Space, genes: Genes, taken: Collection[Genes], rng: np.random.Generator
) -> Genes | None:
    """The genes, perturbed until they are not among `taken`; None where they always are."""
    candidate = genes
    for name, gene in part.genes.items():
        if isinstance(gene, Continuous):
            before = getattr(genes, name)  # may lie outside, if the genome is the user's own
            value = before * FACTORS[int(rng.integers(2))]
            low, high = min(gene.low, before), max(gene.high, before)
            moved: dict[str, Any] = {name: float(min(max(value, low), high))}
        else:
            moved = {name: getattr(mutate(Space({name: gene}, genes), genes, 1.0, rng), name)}
        candidate = replace(candidate, **moved)
    within = Space(part.genes, genes)
    for _ in range(REPAIR_ATTEMPTS):
        if candidate not in taken:
            return candidate
        candidate = mutate(within, candidate, 0.5, rng)
    return None
