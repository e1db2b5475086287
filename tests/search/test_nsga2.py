"""The space, its operators, Pareto orders and breeding."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config.evolution import Evolution, Objective
from coralx.records.genomes import ALL_LINEAR, Genes, Genome
from coralx.records.results import Metrics
from coralx.rng import generator
from coralx.search.nsga2 import (
    Standing,
    founders,
    genome_id,
    offspring,
    survival_order,
)
from coralx.search.pareto import (
    as_minimised,
    best_first,
    crowding,
    front,
    hypervolume,
    ranks,
)
from coralx.search.ranking import ranked
from coralx.search.space import Continuous, Integer, Space, default_recipe
from tests.support.factories import make_config, make_genome, make_space, tiny_space

MIXED = make_space(
    rank={"low": 1, "high": 64, "log": True},
    alpha_ratio={"choices": [0.5, 2.0, 1.0]},
    dropout={"low": 0.0, "high": 0.3},
    learning_rate={"low": 1e-5, "high": 1e-2, "log": True},
    target_modules={"choices": ["all-linear", ["query", "value"], ["query"]]},
    batch_size={"low": 4, "high": 40},
    use_dora={"choices": [False, True]},
)
SKILL = Objective(metric="auroc", direction="maximize")
SIZE = Objective(metric="trainable_parameters", direction="minimize")
seeds = st.integers(0, 2**32)
units = st.floats(0, 1)


def evolution(**changes: Any) -> Evolution:
    return Evolution(**{"population_size": 6, "generations": 2, **changes})


# -- the space -----------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 500), st.booleans(), units)
def test_whole_numbers_decode_in_bounds_and_encode_back(
    low: int, span: int, log: bool, u: float
) -> None:
    gene = Integer(low, low + span, log)
    value = gene.decode(u)
    assert low <= value <= low + span
    assert gene.decode(gene.encode(value)) == value
    assert gene.decode(0.0) == low
    assert gene.decode(1.0) == low + span


@given(st.floats(1e-8, 1e3), st.floats(1.01, 1e4), st.booleans(), units)
def test_numbers_decode_in_bounds_and_encode_back(
    low: float, factor: float, log: bool, u: float
) -> None:
    gene = Continuous(low, low * factor, log)
    value = gene.decode(u)
    assert gene.contains(value)
    assert gene.contains(gene.decode(gene.encode(value)))
    assert math.isclose(gene.decode(gene.encode(value)), value, rel_tol=2e-5)


def test_log_scale_has_its_geometric_mean_in_the_middle() -> None:
    assert Continuous(1e-4, 1e-2, True).decode(0.5) == pytest.approx(1e-3)
    assert Continuous(0.0, 0.2, False).decode(0.5) == pytest.approx(0.1)


@given(seeds, st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_latin_hypercube_hits_every_stratum_once(seed: int, count: int) -> None:
    sampled = MIXED.sample(count, np.random.default_rng(seed))
    assert len(sampled) == count
    assert all(MIXED.contains(genes) for genes in sampled)
    for name in ("dropout", "learning_rate"):
        gene = MIXED.genes[name]
        assert isinstance(gene, Continuous)
        coordinates = sorted(gene.encode(getattr(genes, name)) for genes in sampled)
        for place, u in enumerate(coordinates):
            assert place / count - 1e-4 <= u <= (place + 1) / count + 1e-4


def test_latin_hypercube_draws_choices_equally_often() -> None:
    sampled = MIXED.sample(30, np.random.default_rng(3))
    for name, share in (("alpha_ratio", 10), ("target_modules", 10), ("use_dora", 15)):
        values = [getattr(genes, name) for genes in sampled]
        assert {values.count(value) for value in values} == {share}


@pytest.mark.parametrize(
    "outside",
    [{"rank": 65}, {"dropout": 0.31}, {"alpha_ratio": 3.0}, {"weight_decay": 0.1}],
)
def test_genes_outside_the_space_are_recognised(outside: dict[str, Any]) -> None:
    inside = MIXED.build({name: gene.decode(0.5) for name, gene in MIXED.genes.items()})
    assert MIXED.contains(inside)
    assert not MIXED.contains(Genes(**{**vars(inside), **outside}))


def test_genes_that_are_not_searched_are_the_training_section_s() -> None:
    space = make_space(training={"weight_decay": 0.01, "warmup_ratio": 0.1, "batch_size": 4})
    genes = space.sample(1, np.random.default_rng(0))[0]
    assert (genes.weight_decay, genes.warmup_ratio, genes.batch_size) == (0.01, 0.1, 4)


# -- ranks ---------------------------------------------------------------------------------------

values = st.one_of(st.integers(0, 3).map(float), st.just(math.nan))


def clouds(value: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """Points on a small grid, so that ties and duplicates are common."""
    return st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(value, min_size=width, max_size=width), min_size=1, max_size=14
        ).map(lambda rows: np.array(rows, dtype=float))
    )


def dominates(p: Sequence[float], q: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(p, q, strict=True)) and tuple(p) != tuple(q)


def brute_force_ranks(points: np.ndarray) -> list[int]:
    """Peel one front after another, comparing everyone with everyone."""
    rows = points.tolist()
    rank = [-1] * len(rows)
    left, current = set(range(len(rows))), 0
    while left:
        peeled = {i for i in left if not any(dominates(rows[j], rows[i]) for j in left)}
        for i in peeled:
            rank[i] = current
        left -= peeled
        current += 1
    return rank


@given(clouds(st.integers(0, 3).map(float)))
@settings(max_examples=100, deadline=None)
def test_ranks_equal_the_brute_force_ones(points: np.ndarray) -> None:
    assert ranks(points).tolist() == brute_force_ranks(points)


@given(clouds(values))
@settings(max_examples=100, deadline=None)
def test_missing_values_rank_behind_all_that_have_them(points: np.ndarray) -> None:
    found = ranks(points)
    measured = points[:, ~np.isnan(points).all(axis=0)]
    complete = ~np.isnan(measured).any(axis=1)
    if measured.shape[1] and complete.any():
        assert found[complete].tolist() == brute_force_ranks(measured[complete])
        assert (found[~complete] > found[complete].max()).all()
    else:
        assert len(set(found.tolist())) == 1


@pytest.mark.parametrize("width", [1, 2])
def test_ranks_of_nothing_are_nothing(width: int) -> None:
    assert ranks(np.empty((0, width))).tolist() == []


def test_directions_are_turned_once_and_missing_figures_are_nan() -> None:
    figures: list[Metrics] = [{"auroc": 0.9, "trainable_parameters": 5.0}, {"auroc": None}]
    points = as_minimised(figures, [SKILL, SIZE])
    assert points[0].tolist() == [-0.9, 5.0]
    assert np.isnan(points[1]).all()


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_directions_turn_figures_round_and_missing_ones_stand_last(
    rows: list[tuple[int | None, int]], keep: bool
) -> None:
    ids = [f"g{i:02d}" for i in range(len(rows))]
    figures: list[Metrics] = [{"auroc": a, "trainable_parameters": b} for a, b in rows]
    turned: list[Metrics] = [
        {"auroc": None if a is None else -a, "trainable_parameters": -b} for a, b in rows
    ]
    opposite = [
        Objective(metric="auroc", direction="minimize"),
        Objective(metric="trainable_parameters", direction="maximize"),
    ]
    order = ranked(ids, figures, [SKILL, SIZE], keep_first_objective=keep)
    assert order == ranked(ids, turned, opposite, keep_first_objective=keep)
    missing = [rows[ids.index(genome)][0] is None for genome in order]
    assert missing == sorted(missing)


# -- crowding, fronts, hypervolume ---------------------------------------------------------------


def test_crowding_of_a_worked_example() -> None:
    # f1: 0 1 3 4, span 4; f2: 8 4 2 0, span 8. Second point: (3 - 0)/4 + (8 - 2)/8 = 1.5;
    # third: (4 - 1)/4 + (4 - 0)/8 = 1.25.
    points = np.array([[0, 8], [1, 4], [3, 2], [4, 0]], dtype=float)
    assert crowding(points).tolist() == [math.inf, 1.5, 1.25, math.inf]
    shuffled = [2, 0, 3, 1]
    assert crowding(points[shuffled]).tolist() == [1.25, math.inf, math.inf, 1.5]


def test_of_equal_extremes_one_is_infinitely_uncrowded() -> None:
    points = np.array([[0, 8], [0, 8], [1, 4], [1, 4], [4, 0], [0, 8]], dtype=float)
    assert crowding(points).tolist() == [math.inf, 0.0, 2.0, 0.0, math.inf, 0.0]
    assert crowding(points[:2]).tolist() == [math.inf, 0.0]
    ids = ["c", "a", "d", "e", "f", "b"]
    assert best_first(ids, points) == ["a", "f", "d", "b", "c", "e"]


def test_a_run_of_before_goes_on_to_share_crowding_distances_among_equals() -> None:
    points = np.array([[0, 8], [0, 8], [1, 4], [4, 0]], dtype=float)
    assert crowding(points, revision=1).tolist() == [math.inf, math.inf, 2.0, math.inf]
    assert crowding(points[:2], revision=1).tolist() == [math.inf, math.inf]
    assert best_first(["b", "a", "c", "d"], points, revision=1) == ["a", "b", "d", "c"]
    assert best_first(["b", "a", "c", "d"], points) == ["a", "d", "c", "b"]


@pytest.mark.parametrize("count", [1, 2])
def test_crowding_of_extremes_is_infinite(count: int) -> None:
    points = np.array([[0, 1], [1, 0]], dtype=float)[:count]
    assert crowding(points).tolist() == [math.inf] * count


def test_order_goes_by_rank_then_crowding_then_id() -> None:
    points = np.array([[0, 8], [1, 4], [3, 2], [4, 0], [5, 9]], dtype=float)
    assert best_first(["e", "d", "c", "b", "a"], points) == ["b", "e", "d", "c", "a"]


def test_a_cut_inside_a_front_keeps_its_best_on_the_first_objective() -> None:
    points = np.array([[4, 0], [1, 4], [0, 8], [3, 2]], dtype=float)
    ids = ["a", "b", "z", "d"]
    assert best_first(ids, points) == ["a", "z", "b", "d"]
    assert best_first(ids, points, keep_first_objective=True) == ["z", "a", "b", "d"]


@pytest.mark.parametrize("keep", [False, True])
def test_one_objective_is_plain_sorting_with_ties_by_id(keep: bool) -> None:
    points = np.array([[3.0], [1.0], [2.0], [1.0]])
    assert best_first(["a", "d", "b", "c"], points, keep_first_objective=keep) == list("cdba")


def assert_same_order_however_shuffled(points: np.ndarray, rng: np.random.Generator) -> None:
    ids = [f"g{i:02d}" for i in range(len(points))]
    for keep in (False, True):
        expected = best_first(ids, points, keep_first_objective=keep)
        assert sorted(expected) == ids
        shuffled = rng.permutation(len(points))
        again = best_first([ids[i] for i in shuffled], points[shuffled], keep_first_objective=keep)
        assert again == expected


@given(st.integers(1, 12), st.integers(1, 3), seeds)
@settings(max_examples=50, deadline=None)
def test_order_does_not_depend_on_the_order_of_input(count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.array([rng.permutation(count) for _ in range(width)], dtype=float).T
    points[rng.random(points.shape) < 0.1] = math.nan
    assert_same_order_however_shuffled(points, rng)


def test_order_of_ties_does_not_depend_on_the_order_of_input() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        points = rng.integers(0, 3, (rng.integers(1, 9), rng.integers(1, 4))).astype(float)
        assert_same_order_however_shuffled(points, rng)


def test_front_holds_the_non_dominated_that_lack_no_figure_of_others() -> None:
    nan = math.nan
    points = np.array([[0, 2], [1, 1], [1, 2], [2, 0], [-1, nan]])
    assert front(list("abcde"), points) == ["a", "b", "d"]
    assert front(["a", "b"], np.array([[0, nan], [1, nan]])) == ["a"]
    assert front(["a", "b"], np.array([[nan, 0], [0, nan]])) == []
    assert front([], np.empty((0, 2))) == []


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([], 0.0),
        ([[1, 1]], 4.0),
        ([[0, 2], [1, 1], [2, 0]], 3 + 2 + 1.0),
        ([[1, 1], [2, 2]], 4.0),
        ([[3, 0], [1, 1], [9, -9]], 4.0),
    ],
)
def test_hypervolume_below_a_reference(points: list[list[float]], volume: float) -> None:
    cloud = np.array(points, dtype=float).reshape(-1, 2)
    assert hypervolume(cloud, np.array([3.0, 3.0])) == pytest.approx(volume)


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


# -- identity ------------------------------------------------------------------------------------


def test_id_depends_on_seed_generation_and_index_only() -> None:
    named = {genome_id(s, g, i) for s in range(3) for g in range(3) for i in range(3)}
    assert len(named) == 27
    assert genome_id(1, 2, 3) == genome_id(1, 2, 3)
    first = founders(MIXED, 5, seed=11)
    other = founders(tiny_space(9), 5, seed=11)
    assert [g.id for g in first] == [g.id for g in other]
    assert [g.id for g in first] == [genome_id(11, 0, index) for index in range(5)]
    children = offspring(first, [], [], MIXED, evolution(), 1, seed=11)
    assert [g.id for g in children] == [genome_id(11, 1, index) for index in range(6)]


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
        rows.append(offspring(parents, seen, donors, space, settings_, generation, seed))
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
    children = offspring(population, seen, [], MIXED, evolution(population_size=40), 1, seed=2)
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
    children = offspring(population, seen, donors, MIXED, chosen, 1, seed=2)

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
    children = offspring(population, seen, may, MIXED, chosen, 1, seed=2)
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
    children = offspring(population, [], donors, space, chosen, 1, seed=3)
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
    children = offspring(population, [], [], MIXED, chosen, 1, seed=2, contest=max)
    places = [[order[parent] for parent in child.parents] for child in children]
    assert all(found == sorted(set(found)) for found in places)
    everyone = [place for found in places for place in found]
    assert everyone.count(5) > everyone.count(3) > everyone.count(0)


def test_one_parent_alone_breeds() -> None:
    parent = make_genome("p", MIXED.sample(1, np.random.default_rng(0))[0])
    children = offspring([parent], [parent.genes], [], MIXED, evolution(), 1, seed=3)
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
