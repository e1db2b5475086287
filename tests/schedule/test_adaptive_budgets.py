"""Adaptive budgets: shares by diversity, and what a generation makes of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.errors import ConfigError
from coralx.records.events import GenerationStarted, StageCompleted
from coralx.schedule.adaptive_budgets import CONVERGED, DIVERSE, adapted, shares, with_budgets
from coralx.schedule.brackets import cohort_sizes
from coralx.schedule.stages import Stage, stages_of
from coralx.storage.ledger import Ledger
from tests.support.factories import make_config, make_stages, simulated_config

STAGES = stages_of(make_config().hyperband_config.training_stages)


def spent(stages: tuple[Stage, ...], population: int) -> list[Fraction]:
    """Planned epochs that each stage adds, over all its genomes."""
    before, rows = Fraction(0), []
    for stage, genomes in zip(stages, cohort_sizes(stages, population), strict=True):
        rows.append(genomes * (stage.planned_steps(1) - before))
        before = stage.planned_steps(1)
    return rows


def test_published_shares_at_both_ends_and_between() -> None:
    assert [float(s) for s in shares(0.81, 4)] == pytest.approx(DIVERSE)
    assert [float(s) for s in shares(1.0, 4)] == pytest.approx(DIVERSE)
    assert [float(s) for s in shares(0.0, 4)] == pytest.approx(CONVERGED)
    halfway = [(a + b) / 2 for a, b in zip(DIVERSE, CONVERGED, strict=True)]
    assert [float(s) for s in shares(0.4, 4)] == pytest.approx(halfway)


@given(st.floats(0, 2), st.integers(1, 8))
def test_shares_sum_to_one(diversity: float, stages: int) -> None:
    assert sum(shares(diversity, stages)) == 1
    assert all(share > 0 for share in shares(diversity, stages))


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0, 1),
    st.integers(2, 60),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10)), min_size=1, max_size=5),
)
def test_the_total_is_kept_and_budgets_never_fall(
    diversity: float, population: int, rows: list[tuple[int, int]]
) -> None:
    """Whatever the schedule, the generation costs what it would have cost, and each stage gets its
    share of that to the last fraction."""
    reached, listed = 0, []
    for steps, tenths in rows:
        reached += steps
        listed.append((float(reached), 100.0, tenths / 10))
    stages = make_stages(*listed)
    now = with_budgets(stages, adapted(stages, population, diversity))
    total = sum(spent(stages, population))
    wanted = [share * total for share in shares(diversity, len(stages))]
    assert spent(now, population) == wanted
    totals = [stage.planned_steps(1) for stage in now]
    assert totals == sorted(totals)
    sizes = cohort_sizes(now, population)
    assert sizes[0] == population
    assert list(sizes) == sorted(sizes, reverse=True)


def test_convergence_moves_steps_to_the_last_stage() -> None:
    late = spent(with_budgets(STAGES, adapted(STAGES, 8, 0.0)), 8)
    early = spent(with_budgets(STAGES, adapted(STAGES, 8, 1.0)), 8)
    assert late[-1] > early[-1]
    assert late[0] < early[0]


def test_a_run_records_budgets_and_trains_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = simulated_config(
        evolution={"population_size": 8, "generations": 3, "inherit": "off"},
        hyperband_config={"adaptive_budgets": True},
    )
    outcome = api.evolve(config)
    events = list(Ledger.read_events(outcome.layout.ledger))
    started = [event for event in events if isinstance(event, GenerationStarted)]
    assert started[0].budgets == ()
    for event in started[1:]:
        assert event.diversity is not None
        stages = with_budgets(STAGES, event.budgets)
        assert event.budgets == adapted(STAGES, len(event.genomes), event.diversity)
        ids = {genome.id for genome in event.genomes}
        results = [e.result for e in events if isinstance(e, StageCompleted)]
        for stage in stages:
            ends = {r.last_step for r in results if r.genome in ids and r.stage == stage.name}
            assert stage.trained_steps(1000) in ends
    again = api.resume(outcome.layout)
    assert again.report["front"] == outcome.report["front"]


def test_they_go_with_one_bracket_and_synchronous_promotion_only() -> None:
    with pytest.raises(ConfigError, match="with one bracket"):
        make_config(hyperband_config={"adaptive_budgets": True, "brackets": 2})
    with pytest.raises(ConfigError, match="under `promotion: asynchronous`"):
        make_config(hyperband_config={"adaptive_budgets": True, "promotion": "asynchronous"})
