"""Ranks that grow with the stages: the way to the gene's rank, and what refuses to be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.errors import ConfigError
from coralx.records.events import StageCompleted
from coralx.records.genomes import Genes, Shape
from coralx.schedule.rank_growth import Growth, growth_of, shape_at
from coralx.storage.ledger import Ledger
from tests.support.factories import make_config, simulated_config

GENES = st.builds(
    Genes, rank=st.integers(1, 128), alpha_ratio=st.sampled_from([0.5, 1.0, 1.7, 2.0])
)
MULTIPLIERS = st.lists(st.integers(1, 4), max_size=4).map(lambda later: (1, *later))
STAGES: list[dict[str, Any]] = [
    {"name": "S0", "epoch_budget": 1, "data_percentage": 5, "survival_rate": 1.0},
    {"name": "S1", "epoch_budget": 1, "data_percentage": 20, "survival_rate": 0.5},
    {"name": "S2", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1.0},
    {"name": "S3", "epoch_budget": 2, "data_percentage": 100, "survival_rate": 1.0},
]


def schedule(growth: str, multipliers: tuple[int, ...] = (1, 1, 1, 1)) -> dict[str, Any]:
    stages = [
        {**stage, "stop_when": [], "rank_multiplier": multiplier}
        for stage, multiplier in zip(STAGES, multipliers, strict=False)
    ]
    return {"rank_growth": growth, "training_stages": stages}


def ranks(genes: Genes, growth: Growth, stages: int) -> list[int]:
    return [shape_at(genes, growth, place).rank for place in range(stages)]


@given(GENES, MULTIPLIERS)
def test_by_stage_ranks_grow_by_their_multipliers_up_to_the_gene(
    genes: Genes, multipliers: tuple[int, ...]
) -> None:
    growth = Growth("by-stage", multipliers)
    found = ranks(genes, growth, len(multipliers))
    assert found[-1] == genes.rank
    assert found[0] >= 1
    for place, multiplier in enumerate(multipliers[1:], start=1):
        divides = found[place] % multiplier == 0
        assert found[place] == found[place - 1] * (multiplier if divides else 1)
    for place in range(len(multipliers)):
        shape = shape_at(genes, growth, place)
        assert shape.alpha / shape.rank == pytest.approx(genes.alpha_ratio, rel=1e-12)
    assert shape_at(genes, growth, len(multipliers) - 1) == genes.shape


@pytest.mark.parametrize(
    ("rank", "multipliers", "expected"),
    [
        (16, (1, 2, 1, 2), [4, 8, 8, 16]),
        (12, (1, 2, 3, 2), [1, 2, 6, 12]),
        (6, (1, 1, 2, 2), [3, 3, 3, 6]),  # 3 is not twice a whole rank
        (5, (1, 2, 2, 2), [5, 5, 5, 5]),
        (1, (1, 2, 2, 2), [1, 1, 1, 1]),
    ],
)
def test_by_stage_examples(rank: int, multipliers: tuple[int, ...], expected: list[int]) -> None:
    assert ranks(Genes(rank=rank), Growth("by-stage", multipliers), 4) == expected


@given(GENES)
def test_published_doubles_ranks_under_16_on_entering_the_third_stage(genes: Genes) -> None:
    growth = Growth("published", (1, 1, 1, 1))
    early, late = shape_at(genes, growth, 0), shape_at(genes, growth, 2)
    assert shape_at(genes, growth, 1) == early
    assert shape_at(genes, growth, 3) == late == genes.shape
    assert early.alpha == genes.alpha
    grows = early.rank != late.rank
    assert grows == (genes.rank in range(2, 31, 2))
    assert not grows or (early.rank < 16 and 2 * early.rank == late.rank)


@given(GENES, st.integers(0, 3))
def test_off_is_the_genes_own_shape(genes: Genes, place: int) -> None:
    assert shape_at(genes, Growth("off", (1, 1, 1, 1)), place) == Shape(genes.rank, genes.alpha)


def test_without_hyperband_nothing_grows() -> None:
    config = make_config(hyperband_config={**schedule("by-stage", (1, 2, 1, 2))})
    assert ranks(Genes(rank=16), growth_of(config.hyperband_config), 4) == [4, 8, 8, 16]
    full = config.hyperband_config.model_copy(update={"enable_hyperband": False})
    assert ranks(Genes(rank=16), growth_of(full), 4) == [16] * 4


@pytest.mark.parametrize(
    ("hyperband", "message"),
    [
        (schedule("off", (1, 1, 2, 1)), "stage 'S2' has a rank_multiplier, but rank_growth is off"),
        (schedule("published", (1, 1, 2, 1)), "but rank_growth is published; set `rank_growth: b"),
        (schedule("by-stage", (2, 1, 2, 1)), "the first stage .'S0'. begins at the starting rank"),
        (schedule("by-stage"), "no stage has a rank_multiplier above 1"),
        (
            schedule("published", (1, 1)),
            "grows on entering the third stage, but the schedule has 2 stages",
        ),
    ],
)
def test_growth_that_would_not_happen_as_written_is_refused(
    hyperband: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(hyperband_config=hyperband)


def simulated(folder: Path, monkeypatch: pytest.MonkeyPatch, **hyperband: Any) -> api.Outcome:
    monkeypatch.chdir(folder)
    sections = {
        "search_space": {"rank": {"choices": [4, 8, 16]}},
        "hyperband_config": {**schedule("by-stage", (1, 2, 1, 2)), **hyperband},
    }
    return api.evolve(simulated_config(**sections))


def test_results_and_report_tell_how_ranks_grew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = simulated(tmp_path, monkeypatch)
    events = list(Ledger(outcome.layout.ledger))
    genes = {
        genome.id: genome.genes for event in events for genome in getattr(event, "genomes", ())
    }
    places = {stage["name"]: place for place, stage in enumerate(STAGES)}
    divisors = (4, 2, 2, 1)
    results = [event.result for event in events if isinstance(event, StageCompleted)]
    for result in results:
        assert result.rank == genes[result.genome].rank // divisors[places[result.stage]]
    assert {result.stage for result in results} == set(places)
    for member in outcome.report["front"]:
        rank = member["genes"]["rank"]
        assert member["growth"] == [
            {"stage": "S1", "before": rank // 4, "rank": rank // 2},
            {"stage": "S3", "before": rank // 2, "rank": rank},
        ]


def test_full_training_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = simulated(tmp_path, monkeypatch, enable_hyperband=False)
    assert outcome.report["front"]
    assert all(member["growth"] == [] for member in outcome.report["front"])
