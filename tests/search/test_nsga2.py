"""The space, its operators, Pareto orders and breeding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.records.derivations import Derivation
from coralx.records.genomes import ALL_LINEAR, Genes, Genome
from coralx.rng import generator
from coralx.search.needless import Seen
from coralx.search.nsga2 import (
    Standing,
    founders,
    offspring,
    survival_order,
)
from coralx.search.recipes import default_recipe
from coralx.search.space import Space
from tests.support.factories import make_config, make_genome, make_space, tiny_space
from tests.support.spaces import MIXED, SIZE, SKILL, evolution, seeds

# -- survival ------------------------------------------------------------------------------------


def standing(
    genome: str, place: int, auroc: float | None, size: float = 1.0, *, out: bool = False
) -> Standing:
    return Standing(genome, place, {"auroc": auroc, "trainable_parameters": size}, out)


def test_survival_prefers_the_furthest_stage_whatever_the_figures() -> None:
    standings = [
        standing("early", 0, 0.99),
        standing("late", 3, 0.51, 9.0),
        standing("middle", 1, 0.95),
        Standing("never", -1, {}, True),
    ]
    assert survival_order(standings, [SKILL, SIZE]) == ["late", "middle", "early", "never"]


def test_figures_of_other_stages_do_not_change_an_order() -> None:
    # Within stage 1, a and b are extremes and c lies between them; figures of stage 0 would make
    # other extremes.
    late = [standing("a", 1, 0.6, 1), standing("b", 1, 0.9, 9), standing("c", 1, 0.8, 3)]
    early = [standing("x", 0, 0.1, 99), standing("y", 0, 0.99, 0.1)]
    assert survival_order([*early, *late], [SKILL, SIZE])[:3] == survival_order(late, [SKILL, SIZE])


def test_survival_goes_by_rank_within_a_stage() -> None:
    standings = [standing("a", 2, 0.7, 5), standing("b", 2, 0.8, 4), standing("c", 2, 0.9, 3)]
    assert survival_order(standings, [SKILL, SIZE]) == ["c", "b", "a"]


@given(
    st.lists(
        st.tuples(st.integers(-1, 2), st.integers(0, 3), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_survival_orders_everyone_the_furthest_first(
    rows: list[tuple[int, int, int, bool]],
) -> None:
    standings = [
        standing(f"g{i:02d}", place, auroc / 4, size, out=out)
        for i, (place, auroc, size, out) in enumerate(rows)
    ]
    order = survival_order(standings, [SKILL, SIZE])
    places = {s.genome: s.place for s in standings}
    assert sorted(order) == sorted(places)
    assert [places[genome] for genome in order] == sorted(places.values(), reverse=True)


def test_survival_of_equals_goes_by_id_whatever_the_order_of_input() -> None:
    standings = [standing(genome, 0, 0.5) for genome in "abc"]
    assert survival_order(standings, [SKILL, SIZE]) == ["a", "b", "c"]
    assert survival_order(standings[::-1], [SKILL, SIZE]) == ["a", "b", "c"]


# -- generation 0 --------------------------------------------------------------------------------


def test_default_recipe_is_a_founder_if_the_space_holds_it() -> None:
    space = make_space()
    recipe = default_recipe(space)
    assert recipe is not None
    assert (recipe.rank, recipe.alpha, recipe.learning_rate) == (16, 16.0, 2e-4)
    assert recipe.target_modules == ALL_LINEAR
    assert founders(space, 8, seed=1)[0].genes == recipe


@pytest.mark.parametrize(
    "narrowed",
    [
        {"rank": {"choices": [2, 4]}},
        {"learning_rate": {"low": 1e-3, "high": 1e-2}},
        {"alpha_ratio": {"choices": [2.0]}},
        {"target_modules": {"choices": [["query", "value"]]}},
        {"dropout": {"low": 0.1, "high": 0.2}},
    ],
)
def test_default_recipe_outside_the_space_is_no_founder(narrowed: dict[str, Any]) -> None:
    space = make_space(**narrowed)
    assert default_recipe(space) is None
    population = founders(space, 8, seed=1)
    assert len(population) == 8
    assert all(space.contains(genome.genes) for genome in population)


# -- breeding ------------------------------------------------------------------------------------


def generations(space: Space, count: int, seed: int, **changes: Any) -> list[list[Genome]]:
    """Populations as bred one from another, all of them donors."""
    settings_ = evolution(**changes)
    rows = [founders(space, settings_.population_size, seed)]
    for generation in range(1, count):
        everyone = [genome for row in rows for genome in row]
        parents = everyone[-settings_.population_size :]
        donors = [genome.id for genome in parents]
        seen = [genome.genes for genome in everyone]
        rows.append(offspring(parents, Seen(seen), donors, space, settings_, generation, seed))
    return rows


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_offspring_lie_in_the_space_and_are_a_function_of_the_seed(seed: int) -> None:
    rows = generations(MIXED, 3, seed)
    assert all(MIXED.contains(genome.genes) for row in rows for genome in row)
    assert [len(row) for row in rows] == [6, 6, 6]
    assert rows == generations(MIXED, 3, seed)
    assert rows != generations(MIXED, 3, seed + 1)


@given(seeds, st.integers(1, 14), st.integers(2, 6), st.sampled_from([0, 0.3, 0.9]))
@settings(max_examples=40, deadline=None)
def test_no_configuration_is_bred_twice_and_an_exhausted_space_brings_fewer(
    seed: int, ranks_: int, size: int, elite: float
) -> None:
    rows = generations(tiny_space(ranks_), 4, seed, population_size=size, elite_fraction=elite)
    genes = [genome.genes for row in rows for genome in row]
    assert len(genes) == len(set(genes))
    left = ranks_
    for generation, row in enumerate(rows):
        births = evolution(population_size=size, elite_fraction=elite).births(generation)
        assert len(row) == min(births, left)
        left -= len(row)


@given(seeds, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_no_configuration_is_bred_twice_in_a_space_without_end(
    seed: int, crossover: float, mutation: float
) -> None:
    """Also where children would be copies of their parents."""
    chances = {"crossover_probability": crossover, "mutation_probability": mutation}
    rows = generations(MIXED, 4, seed, population_size=5, **chances)
    genes = [genome.genes for row in rows for genome in row]
    assert len(genes) == len(set(genes)) == 20
    ids = [genome.id for row in rows for genome in row]
    assert len(set(ids)) == 20


def test_same_modules_in_another_order_are_the_same_configuration() -> None:
    space = make_space(
        rank={"choices": [4]},
        alpha_ratio={"choices": [1.0]},
        dropout={"choices": [0.0]},
        learning_rate={"choices": [0.001]},
        target_modules={"choices": [["query", "value"], ["value", "query"]]},
    )
    assert len(founders(space, 2, seed=1)) == 1


def test_parents_are_of_the_population_the_better_first() -> None:
    population = founders(MIXED, 6, seed=2)
    order = {genome.id: place for place, genome in enumerate(population)}
    seen = [genome.genes for genome in population]
    children = offspring(
        population, Seen(seen), [], MIXED, evolution(population_size=40), 1, seed=2
    )
    places = [[order[parent] for parent in child.parents] for child in children]
    assert all(found == sorted(set(found)) and 1 <= len(found) <= 2 for found in places)
    firsts = [found[0] for found in places]
    assert firsts.count(0) > firsts.count(1) > firsts.count(4)


@pytest.mark.parametrize("resize", [False, True])
def test_child_inherits_only_from_a_better_parent_that_fits_and_may_donate(resize: bool) -> None:
    population = founders(MIXED, 6, seed=2)
    by_id = {genome.id: genome for genome in population}
    donors = [genome.id for genome in population[::2]]
    seen = [genome.genes for genome in population]
    chosen = evolution(population_size=80, mutation_probability=0.1, resize_adapters=resize)
    children = offspring(population, Seen(seen), donors, MIXED, chosen, 1, seed=2)

    def shape(genes: Genes) -> tuple[Any, ...]:
        whole = (genes.rank, genes.target_modules, genes.use_rslora)
        return (genes.use_dora,) if resize else (*whole, genes.use_dora)

    kinds = set()
    for child in children:
        better = by_id[child.parents[0]]
        fits, may = shape(child.genes) == shape(better.genes), better.id in donors
        kinds.add((fits, may))
        assert child.inherits == (better.id if fits and may else None)
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}


def crossed(count: int = 200, *, donors: Sequence[str] | None = None, **chances: float) -> Any:
    """Parents by id and many of their children, any two of whose checkpoints may be crossed."""
    population = founders(MIXED, 6, seed=2)
    may = [genome.id for genome in population] if donors is None else donors
    chosen = evolution(population_size=count, checkpoint_crossover=chances)
    seen = [genome.genes for genome in population]
    children = offspring(population, Seen(seen), may, MIXED, chosen, 1, seed=2)
    return {genome.id: genome for genome in population}, children


def test_checkpoint_crossover_leaves_every_other_draw_as_it_was() -> None:
    _, plain = crossed()
    _, blended = crossed(mask=0.5, merge=0.5)
    assert all(child.blend is None for child in plain)
    bred = [(child.id, child.genes, child.parents) for child in plain]
    assert bred == [(child.id, child.genes, child.parents) for child in blended]
    unblended = [child for child in blended if child.blend is None]
    assert {child.id: child for child in unblended}.items() <= {c.id: c for c in plain}.items()


def test_blended_children_have_two_parents_with_weights_whatever_their_shapes() -> None:
    by_id, children = crossed(mask=0.5, merge=0.5)
    shapes = set()
    for child in children:
        genes = [by_id[parent].genes for parent in child.parents]
        may = len(genes) == 2 and len({child.genes.use_dora, *(g.use_dora for g in genes)}) == 1
        if child.blend is None:  # DoRA is masked and never merged
            assert not may or child.genes.use_dora
            continue
        assert may
        assert (child.inherits, child.blend.other) == child.parents
        assert child.blend.kind == "mask" or not child.genes.use_dora
        shapes.add(child.genes.rank == genes[0].rank)
    assert shapes == {True, False}
    kinds = Counter(child.blend.kind for child in children if child.blend)
    assert min(kinds.values()) > 3


@pytest.mark.parametrize(("mask", "merge"), [(0.3, 0.2), (0.0, 0.4), (0.9, 0.0)])
def test_kinds_of_crossover_come_about_as_often_as_their_chances_say(
    mask: float, merge: float
) -> None:
    space = make_space(rank={"low": 2, "high": 64})
    population = founders(space, 6, seed=2)
    chosen = evolution(population_size=400, checkpoint_crossover={"mask": mask, "merge": merge})
    donors = [genome.id for genome in population]
    children = offspring(population, Seen(), donors, space, chosen, 1, seed=3)
    pairs = [child for child in children if len(child.parents) == 2]
    kinds = Counter(child.blend.kind if child.blend else None for child in pairs)
    assert kinds["mask"] / len(pairs) == pytest.approx(mask, abs=0.07)
    assert kinds["merge"] / len(pairs) == pytest.approx(merge, abs=0.07)


def test_without_weights_of_both_parents_nothing_is_crossed() -> None:
    by_id, _ = crossed()
    some = [id_ for id_, genome in by_id.items() if not genome.genes.use_dora][:2]
    _, children = crossed(donors=some, mask=0.5, merge=0.5)
    blended = [child for child in children if child.blend]
    assert blended
    assert all(set(child.parents) == set(some) for child in blended)
    assert not any(child.blend for child in crossed(donors=(), mask=0.5, merge=0.5)[1])


def test_founders_have_neither_parents_nor_an_inheritance() -> None:
    assert all(not g.parents and g.inherits is None for g in founders(MIXED, 6, seed=2))


def test_the_contest_decides_who_breeds() -> None:
    """Turned round, the last places breed most; the better parent is still the earlier one."""
    population = founders(MIXED, 6, seed=2)
    order = {genome.id: place for place, genome in enumerate(population)}
    chosen = evolution(population_size=60)
    children = offspring(population, Seen(), [], MIXED, chosen, 1, seed=2, contest=max)
    places = [[order[parent] for parent in child.parents] for child in children]
    assert all(found == sorted(set(found)) for found in places)
    everyone = [place for found in places for place in found]
    assert everyone.count(5) > everyone.count(3) > everyone.count(0)


def test_one_parent_alone_breeds() -> None:
    parent = make_genome("p", MIXED.sample(1, np.random.default_rng(0))[0])
    children = offspring([parent], Seen([parent.genes]), [], MIXED, evolution(), 1, seed=3)
    assert {child.parents for child in children} == {("p",)}
    assert len({child.genes for child in children} | {parent.genes}) == 7


# -- randomness ----------------------------------------------------------------------------------


def test_draws_depend_on_every_part_of_their_name() -> None:
    names = [(1, "a", 0, 0), (2, "a", 0, 0), (1, "b", 0, 0), (1, "a", 1, 0), (1, "a", 0, 1)]
    assert len({generator(*name).random() for name in names}) == 5
    assert generator(1, "a").random() == generator(1, "a", 0, 0).random()


def test_config_with_one_configuration_is_a_space_of_one() -> None:
    assert len(founders(tiny_space(1), 4, seed=0)) == 1
    assert make_config().evolution.population_size == 8


# -- derived parents -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rank", [{"choices": [4, 8, 16]}, {"low": 4, "high": 16}, {"low": 4, "high": 16, "log": True}]
)
def test_children_of_an_adapter_with_a_rank_of_its_own_have_ranks_of_the_space(rank: Any) -> None:
    space = make_space(rank=rank, learning_rate={"low": 1e-4, "high": 1e-3, "log": True})
    compressed = Derivation("compress", ("a",), share=0.1)
    parents = [
        Genome(f"d{place}", 0, Genes(rank=own), derived=compressed)
        for place, own in enumerate((1, 7, 40))
    ]
    often = evolution(population_size=20, mutation_probability=0.0)
    children = offspring(parents, Seen(), ["d0", "d1", "d2"], space, often, 1, seed=3)
    assert len(children) == 20
    assert all(space.contains(child.genes) for child in children)
    assert [space.nearest(parent.genes).rank for parent in parents] in ([4, 8, 16], [4, 7, 16])
    assert make_space(rank={"choices": [16]}).nearest(Genes(rank=3)).rank == 16


def test_a_child_inherits_from_a_derived_parent_of_its_rank() -> None:
    cut = Genome("d", 0, Genes(rank=4), derived=Derivation("truncate", ("a",), rank=4))
    space = make_space(rank={"choices": [4]}, learning_rate={"low": 1e-4, "high": 1e-3})
    children = offspring([cut], Seen(), ["d"], space, evolution(), 1, seed=3)
    assert {child.inherits for child in children} == {"d"}
