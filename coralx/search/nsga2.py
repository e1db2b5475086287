"""NSGA-II (Deb, Pratap, Agarwal and Meyarivan 2002) over genomes that reached different stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from coralx.config.conditions import Condition
from coralx.config.evolution import CheckpointCrossover, Evolution, Objective
from coralx.records.genomes import Blend, Genes, Genome
from coralx.records.results import Metrics
from coralx.records.run_facts import REVISION
from coralx.rng import derive_seed, generator
from coralx.search.needless import Seen
from coralx.search.nsga3 import Niching
from coralx.search.operators import (
    NO_SCALES,
    cross_values,
    moved_rate,
    mutate,
    mutate_values,
    step_scales,
)
from coralx.search.priors import uniform_rows, weight
from coralx.search.ranking import ranked
from coralx.search.recipes import opening_recipes
from coralx.search.space import Gene, Space

REPAIR_ATTEMPTS = 200
"""How often a duplicate is mutated, and then drawn afresh, before the space counts as exhausted."""


@dataclass(frozen=True)
class Standing:
    """How far a genome came."""

    genome: str
    place: int
    """Of the last stage that it completed, from 0; -1: none."""
    metrics: Metrics
    """Its figures at the end of that stage."""
    taken_out: bool
    """Whether a stop rule or a failure took it out."""


def survival_order(
    standings: Sequence[Standing],
    objectives: Sequence[Objective],
    constraints: Sequence[Condition] = (),
    niching: Niching | None = None,
    revision: int = REVISION,
) -> list[str]:
    """Ids, best first: by the last completed stage, in one stage those taken out behind the others,
    then as in `ranking.in_order`. Figures of different stages are never compared.

    With `niching`, the genomes of each stage are niched over the places that those of later stages
    leave open. `revision` is that of the run.
    """
    ordered: list[str] = []
    groups = sorted({(-s.place, s.taken_out) for s in standings})  # the best group first
    for group in groups:
        members = [s for s in standings if (-s.place, s.taken_out) == group]
        ids, metrics = [s.genome for s in members], [s.metrics for s in members]
        left = replace(niching, places=niching.places - len(ordered)) if niching else None
        ordered += ranked(ids, metrics, objectives, constraints, left, revision=revision)
    return ordered


def genome_id(seed: int, generation: int, index: int) -> str:
    """An id that depends on seed, generation and index alone; other seeds give other ids."""
    tag = derive_seed(seed, "genome", generation, index) & 0xFFFF
    return f"g{generation:02d}-{index:02d}-{tag:04x}"


def founders(
    space: Space,
    population_size: int,
    seed: int,
    own: Sequence[Genes] = (),
    known: Sequence[Genes] = (),
    seen: Seen | None = None,
    core: Space | None = None,
) -> list[Genome]:
    """Generation 0: the user's `own` recipes, the default recipe if the space holds it, the centre
    of the priors if there are any, those `known` from earlier runs, then a space-filling sample.
    `seen` says what of the sample is to be another one; without, what stands before it already.
    The sample is drawn from `core`, if only that part of the space is worth training."""
    recipes = [*opening_recipes(space, own), *known]
    first = list(dict.fromkeys(recipes))[:population_size]
    seen = Seen() if seen is None else seen
    for recipe in first:
        seen.add(recipe)
    sample = (core or space).sample(population_size - len(first), generator(seed, "sample"))
    others = _admitted(space, sample, seen, 0, seed, core, first=len(first))
    return [
        Genome(genome_id(seed, 0, index), 0, genes)
        for index, genes in enumerate([*first, *others])
        if genes is not None
    ]


def offspring(
    population: Sequence[Genome],
    seen: Seen,
    donors: Collection[str],
    space: Space,
    evolution: Evolution,
    generation: int,
    seed: int,
    contest: Callable[[int, int], int] = min,
    births: int | None = None,
    core: Space | None = None,
    revision: int = REVISION,
) -> list[Genome]:
    """The newborn genomes of the next generation, bred from `population` (best first). Survivors of
    the population are not among them.

    Parents win binary tournaments, in which `contest` says which of two places wins: see
    `tournament.tournament`; by default the earlier one. `donors` are the ids whose weights a child
    may take: it inherits from its better parent if that is one of them and rank, modules and
    variant agree; with `resize_adapters` only the use of DoRA must. By the probabilities of
    `checkpoint_crossover` it may start from both, whatever their shapes. `seen` says what need not
    be trained, such as what was trained before; the newborn are added to it. `births` says how many
    are born where it is not as configured; fewer are returned where the space has no more. A
    derived parent's rank counts as the nearest one of the space, and if there is a `core`, the part
    of it that is worth training, each parent's as the nearest there. `revision` is that of the run.
    """
    part = core or space
    values = [
        part.values(part.nearest(parent.genes) if core or parent.derived else parent.genes)
        for parent in population
    ]
    bred: list[Genes] = []
    pairs: list[tuple[Genome, ...]] = []
    scales = step_scales(space, generation)
    for index in range(births or evolution.births(generation)):
        rng = generator(seed, "breed", generation, index)
        places, child = breed(part.genes, values, evolution, contest, rng, scales)
        if revision >= 4:
            child |= moved_rate(part.genes, values[places[0]], generation, rng)
        bred.append(part.build(child))
        pairs.append(tuple(population[place] for place in places))
    bred = _partly_ignoring_priors(part, bred, generation, seed)
    admitted = _admitted(space, bred, seen, generation, seed, core)
    return [
        _child(genes, pairs[index], donors, evolution, generation, index, seed)
        for index, genes in enumerate(admitted)
        if genes is not None
    ]


def _partly_ignoring_priors(
    space: Space, bred: Sequence[Genes], generation: int, seed: int
) -> list[Genes]:
    """The newborn, of which one of four has its genes that have priors from anywhere, as founders
    have; as often as priors still count. A wrong prior is so found out by more than founders."""
    if not space.priors:
        return list(bred)
    rng = generator(seed, "ignore-priors", generation)
    rows = [row for row in uniform_rows(len(bred)) if rng.random() < weight(generation)]
    anywhere = dict(zip(rows, space.without_priors().sample(len(rows), rng), strict=True))
    names = space.priors.keys() & space.genes.keys()
    return [
        replace(genes, **{name: getattr(anywhere[row], name) for name in names})
        if row in anywhere
        else genes
        for row, genes in enumerate(bred)
    ]


def _child(
    genes: Genes,
    parents: tuple[Genome, ...],
    donors: Collection[str],
    evolution: Evolution,
    generation: int,
    index: int,
    seed: int,
) -> Genome:
    """A genome with its parents, the better one first, and with what it inherits from them."""
    rng = generator(seed, "checkpoint-crossover", generation, index)
    blend = _blend(genes, parents, donors, evolution.checkpoint_crossover, rng)
    resize = evolution.resize_adapters or blend is not None
    return Genome(
        id=genome_id(seed, generation, index),
        generation=generation,
        genes=genes,
        parents=tuple(parent.id for parent in parents),
        inherits=_donor(genes, parents[0], donors, resize=resize),
        blend=blend,
    )


def breed(
    genes: Mapping[str, Gene],
    population: Sequence[Mapping[str, Any]],
    evolution: Evolution,
    contest: Callable[[int, int], int],
    rng: np.random.Generator,
    scales: Mapping[str, float] = NO_SCALES,
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """One child of a population of gene values, best first: its parents' places, the better one
    first (a single one where it won both tournaments), and the child's values.

    Without crossover, and in the half of the genes that SBX leaves alone, the child starts from the
    values of its better parent. `scales` are as in `operators.mutate_values`.
    """
    drawn = (rng.integers(len(population), size=2).tolist() for _ in range(2))
    places = tuple(sorted({contest(first, second) for first, second in drawn}))
    values = population[places[0]]
    if len(places) == 2 and rng.random() < evolution.crossover_probability:
        values = cross_values(genes, values, population[places[1]], rng)
    return places, mutate_values(genes, values, evolution.mutation_probability, rng, scales)


def _donor(genes: Genes, parent: Genome, donors: Collection[str], *, resize: bool) -> str | None:
    """The parent's id if it may give its weights and they fit: as they are, or resized. DoRA's
    magnitudes have no counterpart in plain LoRA, so they never fit there. Of a derived parent
    single modules may have a lower rank, or be left out; these grow at no change of function."""
    shape = (
        ("use_dora",) if resize else ("rank", "target_modules", "layers", "use_dora", "use_rslora")
    )
    fits = all(getattr(genes, name) == getattr(parent.genes, name) for name in shape)
    return parent.id if fits and parent.id in donors else None


def _blend(
    genes: Genes,
    parents: Sequence[Genome],
    donors: Collection[str],
    chances: CheckpointCrossover,
    rng: np.random.Generator,
) -> Blend | None:
    """How the child is to start from both its parents, if at all. Both must be donors, and use DoRA
    if and only if the child does; DoRA is never merged."""
    draw = rng.random()
    if draw >= chances.mask + chances.merge or len(parents) < 2:
        return None
    kind: Literal["mask", "merge"] = "mask" if draw < chances.mask else "merge"
    alike = all(parent.genes.use_dora == genes.use_dora for parent in parents)
    fits = alike and not (genes.use_dora and kind == "merge")
    may = all(parent.id in donors for parent in parents)
    return Blend(kind, other=parents[1].id) if fits and may else None


def _admitted(
    space: Space,
    candidates: Sequence[Genes],
    seen: Seen,
    generation: int,
    seed: int,
    core: Space | None = None,
    first: int = 0,
) -> list[Genes | None]:
    """The candidates, where they are among `seen` replaced by mutants within the `core`, or where
    mutation leads to nothing new by fresh draws; None where the space seems exhausted. They are
    born in the places from `first` on."""
    scales = step_scales(space, generation)
    admitted: list[Genes | None] = [None] * len(candidates)
    for index in seen.order(candidates):
        rng = generator(seed, "repair", generation, first + index)
        candidate, last_resort = candidates[index], None
        for attempt in range(2 * REPAIR_ATTEMPTS):
            if candidate not in seen:
                break
            if last_resort is None and seen.is_last_resort(candidate):
                last_resort = candidate
            if attempt < REPAIR_ATTEMPTS:
                candidate = mutate(core or space, candidate, 0.5, rng, scales)
            else:
                candidate = space.draw(generation, rng)
        chosen = last_resort if candidate in seen else candidate
        if chosen is not None:
            seen.add(chosen)
        admitted[index] = chosen
    return admitted
