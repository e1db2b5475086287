"""NSGA-II (Deb, Pratap, Agarwal and Meyarivan 2002) over genomes that reached different stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from coralx.config.conditions import Condition
from coralx.config.evolution import CheckpointCrossover, Evolution, Objective
from coralx.records.genomes import Blend, Genes, Genome
from coralx.records.results import Metrics
from coralx.records.run_facts import REVISION
from coralx.rng import derive_seed, generator
from coralx.search.nsga3 import Niching
from coralx.search.operators import cross_values, mutate, mutate_values
from coralx.search.ranking import in_order
from coralx.search.space import Gene, Space, default_recipe

REPAIR_ATTEMPTS = 200
"""Mutations tried on a duplicate, and then draws, before the space counts as exhausted."""


@dataclass(frozen=True)
class Standing:
    """How far a genome came: the place of the last stage it completed (-1: none), its figures
    there, and whether a rule or a failure took it out."""

    genome: str
    place: int
    metrics: Metrics
    taken_out: bool


def survival_order(
    standings: Sequence[Standing],
    objectives: Sequence[Objective],
    constraints: Sequence[Condition] = (),
    niching: Niching | None = None,
    revision: int = REVISION,
) -> list[str]:
    """Ids, best first: by the furthest completed stage, there the sound before those taken out,
    then as in `selection.in_order`. Figures of different stages are never compared.

    With `niching`, each stage's genomes are niched over those of its places that the further ones
    leave open. `revision` is that of the run.
    """
    ordered: list[str] = []
    groups = sorted({(-s.place, s.taken_out) for s in standings})
    for group in groups:
        members = [s for s in standings if (-s.place, s.taken_out) == group]
        ids, metrics = [s.genome for s in members], [s.metrics for s in members]
        left = replace(niching, places=niching.places - len(ordered)) if niching else None
        ordered += in_order(ids, metrics, objectives, constraints, left, revision=revision)
    return ordered


def genome_id(seed: int, generation: int, index: int) -> str:
    """An id that depends on seed, generation and index alone; other seeds give other ids."""
    tag = derive_seed(seed, "genome", generation, index) & 0xFFFF
    return f"g{generation:02d}-{index:02d}-{tag:04x}"


def founders(
    space: Space, population_size: int, seed: int, own: Sequence[Genes] = ()
) -> list[Genome]:
    """Generation 0: the user's `own` recipes, the default recipe if the space holds it, then a
    space-filling sample."""
    recipe = default_recipe(space)
    first = list(dict.fromkeys([*own, *([recipe] if recipe is not None else [])]))
    first = first[:population_size]
    sampled = space.sample(population_size - len(first), generator(seed, "sample"))
    unique = _without_duplicates(space, first + sampled, set(), 0, seed)
    return [
        Genome(genome_id(seed, 0, index), 0, genes)
        for index, genes in enumerate(unique)
        if genes is not None
    ]


def offspring(
    population: Sequence[Genome],
    seen: Iterable[Genes],
    donors: Collection[str],
    space: Space,
    evolution: Evolution,
    generation: int,
    seed: int,
    contest: Callable[[int, int], int] = min,
) -> list[Genome]:
    """The next generation's newborn genomes, bred from `population` (best first); those of the
    population that survive are carried over beside them.

    Parents win binary tournaments, in which `contest` says which of two places wins: as
    `mating.tournament` has it, else the earlier one. `donors` are the ids whose weights a child may
    take: it inherits from its better parent if that is one of them and rank, modules and variant
    agree; with `resize_adapters`, DoRA or not alone must. By the chances of `checkpoint_crossover`
    it may start from both, whatever their shapes. `seen` are the genes of every genome so far: none
    is trained twice. Fewer are returned where the space has no more.
    """
    values = [space.values(parent.genes) for parent in population]
    wanted: list[Genes] = []
    pairs: list[tuple[Genome, ...]] = []
    for index in range(evolution.births(generation)):
        rng = generator(seed, "breed", generation, index)
        parents, bred = breed(space.genes, values, evolution, contest, rng)
        wanted.append(space.build(bred))
        pairs.append(tuple(population[place] for place in parents))
    unique = _without_duplicates(space, wanted, set(seen), generation, seed)
    children = []
    for index, found in enumerate(unique):
        if found is None:
            continue
        rng = generator(seed, "checkpoint-crossover", generation, index)
        blend = _blend(found, pairs[index], donors, evolution.checkpoint_crossover, rng)
        resize = evolution.resize_adapters or blend is not None
        child = Genome(
            id=genome_id(seed, generation, index),
            generation=generation,
            genes=found,
            parents=tuple(parent.id for parent in pairs[index]),
            inherits=_donor(found, pairs[index][0], donors, resize=resize),
            blend=blend,
        )
        children.append(child)
    return children


def breed(
    genes: Mapping[str, Gene],
    population: Sequence[Mapping[str, Any]],
    evolution: Evolution,
    contest: Callable[[int, int], int],
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """One child of a population of gene values, best first: its parents' places, the better one
    first (one alone where it won both tournaments), and the child's values.

    Where there is no crossover, and in the half of the genes that SBX leaves alone, the child is
    as its better parent.
    """
    drawn = (rng.integers(len(population), size=2).tolist() for _ in range(2))
    places = tuple(sorted({contest(first, second) for first, second in drawn}))
    values = population[places[0]]
    if len(places) == 2 and rng.random() < evolution.crossover_probability:
        values = cross_values(genes, values, population[places[1]], rng)
    return places, mutate_values(genes, values, evolution.mutation_probability, rng)


def _donor(genes: Genes, parent: Genome, donors: Collection[str], *, resize: bool) -> str | None:
    """The parent's id if it may give its weights and they fit: as they are, or resized. DoRA's
    magnitudes have no counterpart in plain LoRA, so they never fit there."""
    shape = ("use_dora",) if resize else ("rank", "target_modules", "use_dora", "use_rslora")
    fits = all(getattr(genes, name) == getattr(parent.genes, name) for name in shape)
    return parent.id if fits and parent.id in donors else None


def _blend(
    genes: Genes,
    parents: Sequence[Genome],
    donors: Collection[str],
    chances: CheckpointCrossover,
    rng: np.random.Generator,
) -> Blend | None:
    """How the child is to start from both its parents, if at all. Both must be donors, and agree
    with the child in DoRA or not; DoRA is never merged."""
    draw = rng.random()
    if draw >= chances.mask + chances.merge or len(parents) < 2:
        return None
    kind: Literal["mask", "merge"] = "mask" if draw < chances.mask else "merge"
    alike = all(parent.genes.use_dora == genes.use_dora for parent in parents)
    fits = alike and not (genes.use_dora and kind == "merge")
    may = all(parent.id in donors for parent in parents)
    return Blend(kind, other=parents[1].id) if fits and may else None


def _without_duplicates(
    space: Space, wanted: Sequence[Genes], seen: set[Genes], generation: int, seed: int
) -> list[Genes | None]:
    """`wanted` with duplicates repaired by mutation, or where that leads nowhere new by drawing
    afresh; None where the space seems exhausted."""
    taken = set(seen)
    repaired: list[Genes | None] = []
    for index, genes in enumerate(wanted):
        rng = generator(seed, "repair", generation, index)
        candidate = genes
        for attempt in range(2 * REPAIR_ATTEMPTS):
            if candidate not in taken:
                break
            nearby = attempt < REPAIR_ATTEMPTS
            candidate = mutate(space, candidate, 0.5, rng) if nearby else space.sample(1, rng)[0]
        fresh = candidate not in taken
        repaired.append(candidate if fresh else None)
        taken.add(candidate)
    return repaired
