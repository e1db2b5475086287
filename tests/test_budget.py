"""Budgets end a run cleanly; own recipes and the baseline; on simulated curves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from coralx import api
from coralx.config import Config, parse_config
from coralx.config.modes import resolve_mode
from coralx.errors import ConfigError
from coralx.events import BudgetSpent, GenerationStarted, StageCompleted
from coralx.genomes import Genes
from coralx.run.ledger import Ledger

OWN = {"rank": 8, "alpha": 16, "learning_rate": 3e-4, "dropout": 0.05}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def simulated(**sections: Any) -> Config:
    values = {"data": {"steps_per_epoch": 400}, "evolution": {"population_size": 6}, **sections}
    return resolve_mode(parse_config(values, "test"), "simulation", None)


def trained(outcome: api.Outcome) -> int:
    events = Ledger.read_events(outcome.layout.ledger)
    return sum(event.result.steps for event in events if isinstance(event, StageCompleted))


@pytest.mark.parametrize("most", [1, 20, 500, 1300])
def test_a_budget_of_steps_is_never_exceeded_and_leaves_the_best_so_far(most: int) -> None:
    outcome = api.evolve(simulated(budget={"max_steps": most}))
    assert trained(outcome) <= most
    assert outcome.report["ended_by"] == f"budget.max_steps = {most}"
    assert not outcome.report["completed"]
    assert bool(outcome.report["provisional"]) == (trained(outcome) > 0)


def test_a_run_resumed_under_a_higher_budget_ends_as_if_it_had_never_been_cut() -> None:
    whole = api.evolve(simulated(), "whole")
    cut = api.evolve(simulated(budget={"max_steps": 900}), "cut")
    steps = trained(cut)
    again = api.resume(cut.layout)
    assert trained(again) == steps  # the limit counts over all resumes
    done = api.resume(cut.layout, simulated(budget={"max_steps": 10**6}))
    assert done.report["completed"]
    assert done.report["ended_by"] is None
    assert done.report["front"] == whole.report["front"]
    assert trained(done) == trained(whole)


def test_a_budget_of_minutes_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    config = simulated(budget={"max_minutes": 1.0})
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock + 61.0 * bool(ticks.pop() if ticks else 1))
    ticks = [0] * 30
    outcome = api.evolve(config)
    assert outcome.report["ended_by"] == "budget.max_minutes = 1"
    assert trained(outcome) > 0
    assert any(isinstance(e, BudgetSpent) for e in Ledger.read_events(outcome.layout.ledger))


def test_own_recipes_open_generation_0() -> None:
    outcome = api.evolve(simulated(evolution={"population_size": 6, "seed_genomes": [OWN]}))
    first = next(
        event
        for event in Ledger.read_events(outcome.layout.ledger)
        if isinstance(event, GenerationStarted)
    )
    own, default = first.genomes[:2]
    assert own.genes == Genes(rank=8, alpha_ratio=2.0, dropout=0.05, learning_rate=3e-4)
    assert default.genes == Genes()
    assert len(first.genomes) == 6


def test_a_recipe_outside_the_space_is_refused_before_there_is_a_run(place: Path) -> None:
    config = simulated(evolution={"seed_genomes": [OWN, {"rank": 64, "learning_rate": 1.0}]})
    with pytest.raises(ConfigError) as error:
        api.evolve(config)
    assert "evolution.seed_genomes.1.rank: 64 lies outside search_space.rank (2, 4, 8, 16, 32)" in (
        error.value.message
    )
    assert "evolution.seed_genomes.1.learning_rate" in error.value.message
    assert not (place / "runs").exists()


def test_the_baseline_is_trained_to_the_end_and_counted_apart() -> None:
    space = {"rank": {"choices": [2, 4]}}  # the default recipe lies outside
    without = api.evolve(simulated(search_space=space))
    config = simulated(search_space=space, runtime={"baseline": True})
    outcome = api.evolve(config)
    assert without.report["baselines"]["default_recipe"] is None
    assert outcome.report["baselines"]["default_recipe"]["auroc"] > 0.5
    ours, theirs = outcome.report["efficiency"], without.report["efficiency"]
    assert ours["actual_steps"] == theirs["actual_steps"]
    assert ours["total_genomes"] == theirs["total_genomes"]
    assert outcome.report["front"] == without.report["front"]


def test_more_recipes_than_the_population_holds_are_refused() -> None:
    config = simulated(evolution={"population_size": 2, "seed_genomes": [OWN] * 3})
    with pytest.raises(ConfigError, match=r"3 recipes, but evolution\.population_size is 2"):
        api.evolve(config)


def test_a_baseline_may_be_asked_for_once_the_run_is_over() -> None:
    space = {"rank": {"choices": [2, 4]}}
    done = api.evolve(simulated(search_space=space))
    again = api.resume(done.layout, simulated(search_space=space, runtime={"baseline": True}))
    assert again.report["baselines"]["default_recipe"]["auroc"] > 0.5
    assert again.report["front"] == done.report["front"]
    before = Ledger.read(done.layout.ledger)
    api.resume(done.layout)
    assert Ledger.read(done.layout.ledger) == before
