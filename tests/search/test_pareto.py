"""Pareto ranks, crowding, fronts and hypervolume, against brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config.evolution import Objective
from coralx.records.results import Metrics
from coralx.search.pareto import (
    as_minimised,
    best_first,
    crowding,
    front,
    hypervolume,
    ranks,
)
from coralx.search.ranking import ranked
from tests.support.spaces import SIZE, SKILL, seeds, values


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
