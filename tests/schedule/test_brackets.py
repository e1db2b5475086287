"""Hyperband's brackets: their sizes, and how a generation goes through them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.config import load_config
from coralx.errors import ConfigError
from coralx.records.events import GenerationStarted, StageCompleted, StageDecided
from coralx.schedule.brackets import bracket_sizes, cohort_sizes, entries
from coralx.schedule.cost import plan_of
from coralx.schedule.stages import Stage, stages_of
from coralx.storage.ledger import Ledger
from tests.support.factories import PUBLISHED, make_config, simulated_config

ETA = 3
DEFAULT = stages_of(make_config().hyperband_config.training_stages)


def geometric(stages: int) -> tuple[Stage, ...]:
    """Budgets 1, eta, eta^2, ...; 1 / eta goes on."""
    return tuple(
        replace(
            DEFAULT[0],
            place=place,
            name=f"S{place}",
            epoch_budget=Fraction(ETA**place),
            data_fraction=Fraction(1),
            survival_rate=Fraction(1, ETA),
            is_last=place == stages - 1,
        )
        for place in range(stages)
    )


def test_table_of_hyperband_for_81_and_3() -> None:
    """Li et al. 2018, algorithm 1 with R = 81, eta = 3: n and r of every rung of every bracket."""
    stages = geometric(5)
    sizes = bracket_sizes(stages, brackets=5, population=81 + 34 + 15 + 8 + 5)
    assert sizes == (81, 34, 15, 8, 5)
    rungs = [
        [(n, int(stage.planned_steps(1))) for n, stage in zip(row, stages[k:], strict=True)]
        for k, size in enumerate(sizes)
        for row in [cohort_sizes(_as_first(stages[k:]), size)]
    ]
    assert rungs == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]


def _as_first(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    return tuple(replace(stage, place=place) for place, stage in enumerate(stages))


def test_entries_are_the_sum_of_the_brackets() -> None:
    stages = geometric(3)
    sizes = bracket_sizes(stages, 3, 20)
    assert sum(sizes) == 20
    begun = [begun for begun, _ in entries(stages, 20, 3)]
    assert tuple(begun) == sizes
    going_on = [going_on for _, going_on in entries(stages, 20, 3)]
    first, second = max(1, sizes[0] // 3), max(1, sizes[1] // 3)
    assert going_on == [0, first, max(1, first // 3) + second]


@given(st.integers(1, 200), st.integers(1, 4))
def test_brackets_share_out_the_whole_population_at_about_equal_cost(
    population: int, brackets: int
) -> None:
    sizes = bracket_sizes(DEFAULT, brackets, population)
    assert sum(sizes) == population
    assert len(sizes) == min(brackets, population)
    assert all(size >= 1 for size in sizes)
    costs = []
    for k in range(len(sizes)):
        share, cost = Fraction(1), Fraction(0)
        for stage in DEFAULT[k:]:
            cost += share * stage.planned_steps(1)
            share *= stage.survival_rate
        costs.append(cost)
    # there is a budget B for which every bracket holds ceil(B / cost) genomes
    least = min(size * cost for size, cost in zip(sizes, costs, strict=True))
    assert all((size - 1) * cost <= least for size, cost in zip(sizes, costs, strict=True))


def test_one_bracket_is_successive_halving() -> None:
    assert cohort_sizes(DEFAULT, 8) == (8, 8, 4, 1)
    plan = plan_of(DEFAULT, 8, 1, 1000)
    assert [stage.continue_steps for stage in plan.stages] == [20, 460, 3760, 1000]


def test_a_bracket_that_begins_later_pays_its_first_stage_whole() -> None:
    stages = geometric(2)
    plan = plan_of(stages, 4, 1, 100, brackets=2)
    begun = bracket_sizes(stages, 2, 4)
    assert begun == (2, 2)
    assert [stage.genomes for stage in plan.stages] == [2, 3]
    assert plan.continue_steps == 2 * 100 + 1 * 200 + 2 * 300
    assert plan.restart_steps == 2 * 100 + 3 * 300


def test_a_run_trains_each_bracket_from_its_own_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = simulated_config(
        evolution={"population_size": 12, "generations": 2},
        hyperband_config={"brackets": 3},
    )
    outcome = api.evolve(config)
    events = list(Ledger.read_events(outcome.layout.ledger))
    stages = stages_of(config.hyperband_config.training_stages)
    sizes = bracket_sizes(stages, 3, 12)
    for generation in (0, 1):
        (started,) = [
            e for e in events if isinstance(e, GenerationStarted) and e.generation == generation
        ]
        brackets = [genome.bracket for genome in started.genomes]
        assert [brackets.count(k) for k in range(3)] == list(sizes)
        assert all(genome.enters == genome.bracket for genome in started.genomes)
    genomes = {g.id: g for e in events if isinstance(e, GenerationStarted) for g in e.genomes}
    seen: set[str] = set()
    for event in events:
        if isinstance(event, StageCompleted):
            result = event.result
            place = next(s.place for s in stages if s.name == result.stage)
            if result.genome not in seen:
                seen.add(result.genome)
                assert (place, result.first_step) == (genomes[result.genome].bracket, 0)
            if result.divergence is None:
                assert result.last_step == stages[place].trained_steps(1000)
    assert seen == set(genomes)
    decided = [e for e in events if isinstance(e, StageDecided) and e.stage == "S1_shakeout"]
    for event in decided:  # the quota of each bracket is its own
        for bracket in (0, 1):
            entered = [v for v in event.verdicts if genomes[v.genome].bracket == bracket]
            promoted = [v for v in entered if v.kind == "promote"]
            assert len(promoted) <= stages[1].quota(len(entered))
    efficiency = outcome.report["efficiency"]
    rows = efficiency["stage_breakdown"]
    planned = sum(
        row["trained_steps"] for row in rows.values()
    )  # the steps of these stages are whole numbers, so planned and trained agree
    assert efficiency["actual_steps"] == pytest.approx(planned, rel=0.02)


def test_brackets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(PUBLISHED + "  brackets: 5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="`brackets` is 5, but the schedule has 4 stages"):
        load_config(path)
    with pytest.raises(ConfigError, match="each bracket needs"):
        make_config(hyperband_config={"brackets": 4}, evolution={"population_size": 3})
