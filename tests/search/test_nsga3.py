"""NSGA-III: reference points, normalisation, and fronts ordered by niching."""

from __future__ import annotations

import math
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.search.nsga2 import Standing, survival_order
from coralx.search.nsga3 import Niching, niched_first, normalised, reference_points
from coralx.search.pareto import Points, Violations, best_first, ranks
from coralx.search.ranking import niching_of, ranked
from tests.support.factories import simulated_config

OBJECTIVES = simulated_config(
    objectives=[{"metric": "auroc"}, {"metric": "calibration"}, {"metric": "trainable_parameters"}]
).objectives


def niched(
    points: Points,
    places: int,
    violations: Violations | None = None,
    *,
    seed: int = 0,
    keep: bool = False,
) -> list[int]:
    """Rows of `points`, best first."""
    ids = [f"g{i:03d}" for i in range(len(points))]
    niching = Niching(places, np.random.default_rng(seed))
    found = niched_first(ids, points, niching, violations, keep_first_objective=keep)
    return [ids.index(name) for name in found]


@given(st.integers(2, 6), st.integers(1, 120))
def test_reference_points_are_on_the_simplex_and_as_few_as_suffice(width: int, wanted: int) -> None:
    points = reference_points(width, wanted)
    assert len(points) >= wanted
    assert np.allclose(points.sum(axis=1), 1.0)
    assert (points >= 0).all()
    partitions = round(1 / np.unique(points[points > 0]).min())
    assert len(points) == len(np.unique(points, axis=0)) == comb(width + partitions - 1, partitions)
    assert partitions == 1 or comb(width + partitions - 2, partitions - 1) < wanted


def simplex(count: int, rng: np.random.Generator) -> Points:
    """Random points on the plane x + y + z = 1 and its three corners: one front."""
    return np.vstack([np.eye(3), rng.dirichlet([1, 1, 1], count)])


@given(st.integers(0, 2**32), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_a_plane_in_any_units_becomes_the_unit_simplex(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    plane = simplex(count, rng)
    scale, shift = 10.0 ** rng.integers(-4, 7, 3), rng.normal(size=3) * 100
    everyone = [np.arange(len(plane))]
    assert np.allclose(normalised(plane * scale + shift, everyone, len(plane)), plane, atol=1e-6)


@pytest.mark.parametrize(
    "points",
    [
        [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]],  # no extent at all
        [[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]],  # none on one axis
        [[0.0, 1.0, 0.5], [1.0, 0.0, 0.7], [0.5, 0.5, 0.6]],  # no plane
    ],
)
def test_fronts_that_span_no_plane_are_scaled_by_their_extent(points: list[list[float]]) -> None:
    cloud = np.array(points)
    scaled = normalised(cloud, [np.arange(len(cloud))], len(cloud))
    assert np.isfinite(scaled).all()
    extent = np.ptp(cloud, axis=0)
    assert np.allclose(np.ptp(scaled, axis=0), np.where(extent > 0, 1.0, 0.0))


def test_an_axis_on_which_the_front_is_flat_is_scaled_by_those_behind_it() -> None:
    cloud = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 5.0], [2.0, 2.0, 7.0]])
    scaled = normalised(cloud, [np.array([0, 1]), np.array([2])], 3)
    assert scaled[2, 2] == pytest.approx(1.0)


def test_each_reference_point_gets_its_nearest_before_any_gets_a_second() -> None:
    """Six lines (three objectives, two partitions); a crowd around one, one point at the others."""
    lines = reference_points(3, 6)
    crowd = np.array([[0.5 + d, 0.5 - d, 0.0] for d in (0.1, 0.05, 0.01, -0.03, 0.2)])
    others = lines[~np.all(lines == [0.5, 0.5, 0.0], axis=1)]
    points = np.vstack([crowd, others])
    for seed in range(5):
        order = niched(points, 6, seed=seed)
        assert sorted(order[:6]) == [2, *range(5, 10)]


@given(st.integers(0, 2**32), st.integers(1, 15), st.integers(1, 20), st.booleans())
@example(69047739, 13, 1, False)  # two points are the same, and both lack the same figure
@settings(max_examples=80, deadline=None)
def test_fronts_stand_in_the_order_of_their_ranks_whatever_the_order_of_input(
    seed: int, count: int, places: int, keep: bool
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 4, (count, 3)).astype(float)
    points[rng.random(points.shape) < 0.05] = math.nan
    violations = rng.choice([0.0, 0.0, 0.0, 0.5, 1.0], count)
    order = niched(points, places, violations, keep=keep)
    assert sorted(order) == list(range(count))
    found = ranks(points, violations)[order]
    assert found.tolist() == sorted(found)
    ids = [f"g{i:03d}" for i in range(count)]
    shuffled = rng.permutation(count)
    again = niched_first(
        [ids[i] for i in shuffled],
        points[shuffled],
        Niching(places, np.random.default_rng(0)),
        violations[shuffled],
        keep_first_objective=keep,
    )
    assert again == [ids[i] for i in order]


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_units_do_not_change_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(20, 3))
    assert niched(points * [1e6, 1.0, 1e-3] + [5, 0, 7], 8) == niched(points, 8)


def test_a_cut_inside_a_front_keeps_its_best_on_the_first_objective() -> None:
    points = simplex(12, np.random.default_rng(4))
    best = int(points[:, 0].argmin())
    assert all(niched(points, 4, seed=seed, keep=True)[0] == best for seed in range(5))
    assert any(niched(points, 4, seed=seed)[0] != best for seed in range(5))


@pytest.mark.parametrize("width", [1, 3])
def test_where_there_is_nothing_to_spread_the_order_is_that_of_nsga2(width: int) -> None:
    rng = np.random.default_rng(0)
    points = np.full((9, 3), math.nan)
    points[:, :width] = rng.integers(0, 3, (9, width))
    violations = rng.random(9) if width == 3 else np.zeros(9)
    ids = [f"g{i:03d}" for i in range(9)]
    order = niched(points, 4, violations)
    assert [ids[i] for i in order] == best_first(ids, points, violations)


def test_survival_niches_over_the_places_that_further_stages_leave() -> None:
    names = ("auroc", "calibration", "trainable_parameters")
    cloud = simplex(9, np.random.default_rng(1))
    figures = [dict(zip(names, (-x, y, z), strict=True)) for x, y, z in cloud.tolist()]
    behind = [
        Standing(f"b{i:02d}", 2, metrics, taken_out=False) for i, metrics in enumerate(figures)
    ]
    done = [Standing(f"d{i}", 3, figures[i], taken_out=False) for i in range(3)]
    order = survival_order([*behind, *done], OBJECTIVES, (), Niching(9, np.random.default_rng(2)))
    assert set(order[:3]) == {"d0", "d1", "d2"}
    rng = np.random.default_rng(2)
    niched_first([one.genome for one in done], cloud[:3], Niching(9, rng))
    ids = [one.genome for one in behind]
    assert order[3:] == niched_first(ids, cloud, Niching(6, rng))
    assert order[3:] != niched_first(ids, cloud, Niching(9, rng))


def test_selection_decides_whether_fronts_are_niched() -> None:
    assert niching_of(simulated_config(), 4, "survive", 1) is None
    config = simulated_config(evolution={"selection": "nsga3"})
    rng = np.random.default_rng(3)
    names = ("auroc", "calibration", "trainable_parameters")
    figures = [dict(zip(names, row, strict=True)) for row in rng.random((12, 3)).tolist()]
    ids = [f"g{i:02d}" for i in range(12)]
    orders = [
        ranked(ids, figures, OBJECTIVES, (), niching_of(config, 4, "survive", generation))
        for generation in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_a_search_by_reference_points_repeats_itself_and_keeps_a_spread_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = simulated_config(
        evolution={"population_size": 12, "generations": 3, "selection": "nsga3"},
        objectives=[objective.model_dump() for objective in OBJECTIVES],
        hyperband_config={
            "training_stages": [
                {"name": "A", "epoch_budget": 0.5, "data_percentage": 50, "survival_rate": 0.5},
                {"name": "B", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
            ]
        },
    )
    first, second = (api.evolve(config, name).report for name in ("one", "two"))
    assert first["front"] == second["front"]
    assert len(first["front"]) >= 3
    crowded = config.evolution.model_copy(update={"selection": "nsga2"})
    other = api.evolve(config.model_copy(update={"evolution": crowded}), "three").report
    assert other["front"] != first["front"]
