"""Hypervolume and diversity by generation, and the end of a search that has stalled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coralx.api import runs as api
from coralx.records.genomes import Genes
from coralx.search.indicators import box_of, diversity, relative_hypervolume, spacing
from tests.support.factories import make_space, simulated_config

SPACE = make_space(
    rank={"choices": [2, 4, 8]},
    alpha_ratio={"choices": [1.0]},
    dropout={"low": 0.0, "high": 0.2},
    learning_rate={"low": 1e-4, "high": 1e-2, "log": True},
    target_modules={"choices": [["query"], "all-linear"]},
)
GENES = Genes(rank=2, dropout=0.0, learning_rate=1e-4, target_modules=("query",))
clouds = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(-5, 5))


def test_the_box_leaves_room_behind_the_worst_point() -> None:
    ideal, reference = box_of(np.array([[0.0, 10.0], [2.0, 10.0]]))
    assert ideal.tolist() == [0.0, 10.0]
    assert reference.tolist() == pytest.approx([2.2, 11.0])


def test_hypervolume_is_a_share_of_the_box() -> None:
    box = np.array([0.0, 0.0]), np.array([2.0, 4.0])
    assert relative_hypervolume(np.array([[0.0, 0.0]]), box) == pytest.approx(1.0)
    assert relative_hypervolume(np.array([[1.0, 2.0]]), box) == pytest.approx(0.25)
    assert relative_hypervolume(np.array([[1.0, 0.0], [0.0, 2.0]]), box) == pytest.approx(0.75)
    assert relative_hypervolume(np.array([[3.0, 0.0]]), box) == 0.0


@given(clouds, clouds)
def test_more_points_never_lessen_the_hypervolume(first: np.ndarray, second: np.ndarray) -> None:
    box = box_of(first)
    both = np.vstack([first, second])
    assert relative_hypervolume(both, box) >= relative_hypervolume(first, box) - 1e-9


def test_an_even_front_has_no_spacing() -> None:
    box = np.array([0.0, 0.0]), np.array([1.0, 1.0])
    even = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    assert spacing(even, box) == pytest.approx(0.0)
    assert spacing(np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0]]), box) > 0.1
    assert spacing(even[:2], box) is None


def test_diversity_is_the_mean_distance_of_genes() -> None:
    assert diversity(SPACE, [GENES, GENES]) == 0.0
    opposite = replace(GENES, rank=8, dropout=0.2, learning_rate=1e-2, target_modules="all-linear")
    assert diversity(SPACE, [GENES, opposite]) == pytest.approx(4 / 5)  # alpha_ratio cannot differ
    middle = replace(GENES, rank=4, dropout=0.1, learning_rate=1e-3)
    assert diversity(SPACE, [GENES, middle]) == pytest.approx(1.5 / 5)
    assert diversity(SPACE, [GENES]) == 0.0


def test_genes_outside_the_space_count_as_its_edge() -> None:
    beyond = replace(GENES, rank=64, learning_rate=1.0)
    edge = replace(GENES, rank=8, learning_rate=1e-2)
    assert diversity(SPACE, [GENES, beyond]) == diversity(SPACE, [GENES, edge])


def test_reports_show_every_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = simulated_config(evolution={"population_size": 8, "generations": 4})
    rows = api.evolve(config).report["convergence"]
    assert [row["generation"] for row in rows] == [0, 1, 2, 3]
    volumes = [row["hypervolume"] for row in rows]
    assert volumes == sorted(volumes)
    assert volumes[0] > 0
    assert all(0.0 <= row["diversity"] <= 1.0 for row in rows)


def test_a_stalled_search_ends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a space of few configurations nothing is left to move."""
    monkeypatch.chdir(tmp_path)
    sections: dict[str, Any] = {
        "search_space": {
            "rank": {"choices": [4]},
            "alpha_ratio": {"choices": [1.0]},
            "dropout": {"choices": [0.0]},
            "learning_rate": {"low": 1e-4, "high": 1e-3},
        },
        "evolution": {"population_size": 4, "generations": 20, "patience": 3},
    }
    report = api.evolve(simulated_config(**sections)).report
    assert report["completed"]
    assert report["stalled"]
    assert 4 <= report["generations"] < 20
    sections["evolution"].pop("patience")
    patient = api.evolve(simulated_config(**sections), "patient").report
    assert patient["generations"] == 20
    assert not patient["stalled"]
