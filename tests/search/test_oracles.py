"""CoralX's selection and operators against pymoo's, on its test problems."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config.evolution import Evolution, Objective
from coralx.rng import generator
from coralx.search.nsga2 import Standing, breed, survival_order
from coralx.search.nsga3 import Niching, associate, reference_points
from coralx.search.pareto import crowding, hypervolume, ranks
from coralx.search.space import Continuous
from coralx.search.tournament import tournament

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.nsga3 import NSGA3, associate_to_niches
    from pymoo.indicators.igd import IGD
    from pymoo.operators.survival.rank_and_crowding.metrics import (
        FunctionalDiversity,
        calc_crowding_distance,
    )
    from pymoo.optimize import minimize
    from pymoo.problems import get_problem
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
    from pymoo.util.ref_dirs import get_reference_directions

FIGURES = ("eval_loss", "calibration", "train_loss", "perplexity", "adapter_bytes")
"""Metrics to be minimised, which stand for a problem's objectives."""

# -- ranks and crowding --------------------------------------------------------------------------


@st.composite
def clouds(draw: st.DrawFn) -> np.ndarray:
    """Points without duplicates: now on a coarse grid, where many share a value, now anywhere."""
    count, width = draw(st.integers(3, 40)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        points = rng.integers(0, draw(st.integers(2, 9)), (count, width)).astype(float)
        return rng.permutation(np.unique(points, axis=0))
    return rng.normal(size=(count, width)) * 10.0 ** rng.integers(-6, 7, width)


@given(clouds())
@settings(max_examples=2000, deadline=None)
def test_ranks_are_pymoo_s(points: np.ndarray) -> None:
    found = ranks(points)
    fronts = NonDominatedSorting().do(points)
    assert len(fronts) == found.max() + 1
    for rank, members in enumerate(fronts):
        assert sorted(members) == np.flatnonzero(found == rank).tolist()


@given(clouds())
@settings(max_examples=2000, deadline=None)
def test_crowding_is_pymoo_s_times_the_number_of_objectives(points: np.ndarray) -> None:
    """Both sort each objective stably; we break ties by the other objectives, not by the order of
    the input, so pymoo is given the points in that order."""
    points = np.unique(points, axis=0)
    for rank in range(int(ranks(points).max()) + 1):
        front = points[ranks(points) == rank]
        if len(front) > 2:  # of fewer, each is an extreme; pymoo's NSGA2 does not even ask
            expected = calc_crowding_distance(front) * points.shape[1]
            np.testing.assert_allclose(crowding(front), expected, rtol=1e-9)


@given(clouds(), st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_of_equal_points_one_has_the_distance_that_pymoo_s_duplicate_filter_leaves(
    points: np.ndarray, seed: int
) -> None:
    points = np.unique(points, axis=0)
    front = points[ranks(points) == 0]
    repeated = np.repeat(front, np.random.default_rng(seed).integers(1, 4, len(front)), axis=0)
    found = crowding(repeated)
    if len(front) > 2:
        theirs = FunctionalDiversity(calc_crowding_distance, filter_out_duplicates=True)
        np.testing.assert_allclose(found, theirs.do(repeated) * points.shape[1], rtol=1e-9)
    for point in front:
        assert np.isinf(found[(repeated == point).all(axis=1)]).sum() <= 1
    for column in range(points.shape[1]):  # every end of the front has one that is kept
        kept = repeated[np.isinf(found), column]
        assert {kept.min(), kept.max()} == {front[:, column].min(), front[:, column].max()}


@given(clouds(), st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_constrained_ranks_split_as_pymoo_s_survival_does(points: np.ndarray, seed: int) -> None:
    """The feasible as if they were alone, then the others one violation after the other."""
    violations = np.random.default_rng(seed).choice([0.0, 0.0, 0.1, 0.2, 3.0], len(points))
    found = ranks(points, violations)
    expected = np.zeros(len(points), dtype=int)
    feasible = np.flatnonzero(violations == 0)
    fronts = NonDominatedSorting().do(points[feasible]) if len(feasible) else []
    for rank, members in enumerate(fronts):
        expected[feasible[members]] = rank
    for place, violation in enumerate(np.unique(violations[violations > 0])):
        expected[violations == violation] = len(fronts) + place
    assert found.tolist() == expected.tolist()


# -- NSGA-III's parts ----------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "partitions"), [(2, 7), (3, 4), (4, 3), (5, 5), (6, 2)])
def test_reference_points_are_pymoo_s(width: int, partitions: int) -> None:
    expected = get_reference_directions("das-dennis", width, n_partitions=partitions)
    found = reference_points(width, len(expected))
    np.testing.assert_allclose(np.unique(found, axis=0), np.unique(expected, axis=0), atol=1e-12)
    assert len(found) == len(expected)


@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_points_belong_to_the_line_that_pymoo_finds(width: int, count: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((count, width))
    lines = reference_points(width, 20)
    niche, distance = associate(points, lines)
    theirs = associate_to_niches(points, lines, np.zeros(width), np.ones(width))
    np.testing.assert_allclose(distance, theirs[1], atol=1e-12)
    assert niche.tolist() == theirs[0].tolist()


# -- whole searches ------------------------------------------------------------------------------


def evolve(problem: Any, seed: int, size: int, generations: int, *, niched: bool) -> np.ndarray:
    """The last population's objective values, shape (size, objectives): CoralX's breeding and
    survival on a problem of pymoo's, every variable of which is a gene."""
    bounds = zip(problem.xl.tolist(), problem.xu.tolist(), strict=True)
    genes = {f"x{i}": Continuous(low, high, False) for i, (low, high) in enumerate(bounds)}
    evolution = Evolution(population_size=size, mutation_probability=1 / len(genes))
    objectives = [Objective(metric=FIGURES[i], direction="minimize") for i in range(problem.n_obj)]
    values: dict[str, dict[str, Any]] = {}
    standings: dict[str, Standing] = {}

    def admit(newborn: Sequence[dict[str, Any]], generation: int) -> None:
        figures = problem.evaluate(np.array([list(child.values()) for child in newborn]))
        for index, child in enumerate(newborn):
            name = f"{generation:03d}-{index:03d}"
            metrics = dict(zip(FIGURES, figures[index].tolist(), strict=False))
            values[name], standings[name] = child, Standing(name, 0, metrics, taken_out=False)

    rng = generator(seed, "sample")
    draws = [{name: gene.decode(rng.random()) for name, gene in genes.items()} for _ in range(size)]
    admit(draws, 0)
    seen = {tuple(child.values()) for child in draws}
    order = list(values)
    for generation in range(1, generations):
        contest = tournament([standings[g] for g in order], objectives, by_crowding=not niched)
        population = [values[name] for name in order]
        newborn: list[dict[str, Any]] = []
        index = 0
        while len(newborn) < size:  # as in a run, nothing is evaluated twice
            draw = generator(seed, "breed", generation, index)
            _, child = breed(genes, population, evolution, contest, draw)
            index += 1
            if tuple(child.values()) not in seen:
                seen.add(tuple(child.values()))
                newborn.append(child)
        admit(newborn, generation)
        niching = Niching(size, generator(seed, "survive", generation)) if niched else None
        pool = [*(standings[name] for name in order), *list(standings.values())[-size:]]
        order = survival_order(pool, objectives, niching=niching)[:size]
    return np.array([list(standings[name].metrics.values()) for name in order])


def volume(points: np.ndarray) -> float:
    return hypervolume(points, np.full(points.shape[1], 1.1))


@cache
def volumes(name: str, seeds: int, size: int = 100, generations: int = 100) -> tuple[float, float]:
    """Median hypervolume over the seeds, of CoralX and of pymoo's NSGA2."""
    problem = get_problem(name)
    ours = [volume(evolve(problem, s, size, generations, niched=False)) for s in range(seeds)]
    theirs = [
        volume(minimize(problem, NSGA2(pop_size=size), ("n_gen", generations), seed=s).F)
        for s in range(seeds)
    ]
    return float(np.median(ours)), float(np.median(theirs))


@pytest.mark.parametrize("name", ["zdt1", "dtlz2"])
def test_hypervolume_comes_near_pymoo_s(name: str) -> None:
    """The check below with two seeds, whose medians scatter by about a percent."""
    ours, theirs = volumes(name, 2)
    assert ours > 0.97 * theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zdt1", "zdt2", "zdt3", "dtlz2"])
def test_hypervolume_is_within_a_percent_of_pymoo_s(name: str) -> None:
    ours, theirs = volumes(name, 10)
    assert ours > 0.99 * theirs


def many_objectives(width: int, partitions: int, seeds: int) -> dict[str, tuple[float, float]]:
    """Median inverted generational distance and hypervolume on DTLZ2 after 100 generations."""
    lines = get_reference_directions("das-dennis", width, n_partitions=partitions)
    problem, size = get_problem("dtlz2", n_var=width + 9, n_obj=width), len(lines)
    distance = IGD(problem.pareto_front(lines))

    def theirs(seed: int) -> Any:
        found = minimize(problem, NSGA3(lines, pop_size=size), ("n_gen", 100), seed=seed)
        return found.algorithm.pop.get("F")

    searches: dict[str, Callable[[int], Any]] = {
        "pymoo": theirs,
        "nsga3": lambda seed: evolve(problem, seed, size, 100, niched=True),
        "nsga2": lambda seed: evolve(problem, seed, size, 100, niched=False),
    }
    fronts = {name: [search(seed) for seed in range(seeds)] for name, search in searches.items()}
    return {
        name: (
            float(np.median([distance(points) for points in found])),
            float(np.median([volume(points) for points in found])),
        )
        for name, found in fronts.items()
    }


def test_reference_points_spread_a_front_of_three_objectives_as_pymoo_s_do() -> None:
    found = many_objectives(3, 12, seeds=1)
    assert found["nsga3"][1] > 0.98 * found["pymoo"][1]
    assert found["nsga3"][0] < 0.3 * found["nsga2"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "partitions"), [(3, 12), (5, 5)])
def test_many_objectives_come_out_as_with_pymoo_s_nsga3(width: int, partitions: int) -> None:
    found = many_objectives(width, partitions, seeds=5)
    assert found["nsga3"][1] > 0.97 * found["pymoo"][1]
    assert found["nsga3"][0] < 0.3 * found["nsga2"][0]
