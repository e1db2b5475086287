"""Budgets end a run cleanly; own recipes and the baseline; on simulated curves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.cli import validate
from coralx.config import Config, parse_config
from coralx.config.mode import resolve_mode
from coralx.config.runtime import Budget
from coralx.engine.budget import budget_warnings
from coralx.errors import ConfigError
from coralx.records.events import BudgetSpent, GenerationStarted, StageCompleted
from coralx.records.genomes import Genes
from coralx.storage.ledger import Ledger

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
    scored = [e for e in Ledger(outcome.layout.ledger) if isinstance(e, StageCompleted)]
    is_known = any("auroc" in event.result.metrics for event in scored)
    assert bool(outcome.report["provisional"]) == is_known
    assert is_known == (most >= 100)


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
    ticks = [0] * 30
    monkeypatch.setattr(time, "monotonic", lambda: clock + 61.0 * bool(ticks.pop() if ticks else 1))
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


# -- what is said at the end, and with which exit code ---------------------------------------------

CONFIG = """
data: {steps_per_epoch: 400}
search_space: {learning_rate: {low: 1e-4, high: 5e-3, log: true}}
evolution: {population_size: 6, generations: 2}
runtime: {backend: simulated}
"""


@pytest.mark.parametrize(
    ("settings", "code", "ended_by"),
    [
        (["budget.max_steps=9"], 3, "budget.max_steps = 9"),
        (["budget.max_steps=1"], 3, "budget.max_steps = 1"),
        (["budget.max_minutes=1e-06"], 3, "budget.max_minutes = 1e-06"),
        (["budget.max_minutes=1e-06", "budget.max_steps=9"], 3, "budget.max_minutes = 1e-06"),
        (["budget.max_minutes=900", "budget.max_steps=9"], 3, "budget.max_steps = 9"),
        (["budget.max_gpu_hours=1e-06", "budget.max_steps=9"], 3, "budget.max_steps = 9"),
        (["budget.max_steps=9", "hyperband_config.promotion=asynchronous"], 3, None),
        (["budget.max_steps=3000"], 0, "budget.max_steps = 3000"),
    ],
)
def test_one_rule_for_the_exit_code_and_words_that_name_the_limit(
    place: Path, command: Any, settings: list[str], code: int, ended_by: str | None
) -> None:
    """3 without a front, 0 with one; how to go on is said in both cases."""
    (place / "c.yaml").write_text(CONFIG)
    limit = ended_by or settings[0].replace("=", " = ")
    said = command("evolve", "c.yaml", *(part for s in settings for part in ("--set", s)))
    assert said.code == code, said
    told = said.err if code else said.out
    assert ("no generation completed (population 6)" in " ".join(said.out.split())) == (code == 3)
    assert f"nded by {limit}" in told
    key = limit.partition(" = ")[0]
    assert f"To go on: coralx evolve --resume run --set {key}=MORE" in " ".join(told.split())
    assert "looser stop rules" not in told
    again = command("evolve", "--resume", "run", "--quiet")
    assert (again.code, f"nded by {limit}" in again.out + again.err) == (code, True)


def test_a_stage_that_a_budget_ends_says_how_to_go_on(place: Path, command: Any) -> None:
    (place / "c.yaml").write_text(CONFIG)
    more = ("--set", "budget.max_steps=3")
    said = command("stage", "c.yaml", "S0_sanity", *more)
    assert said.code == 3
    told = " ".join(said.err.split())
    assert "stage S0_sanity was not completed: ended by budget.max_steps = 3 before any" in told
    assert "coralx stage c.yaml S0_sanity --run run --set budget.max_steps=MORE" in told
    assert command("stage", "c.yaml", "S0_sanity", "--run", "run").code == 0
    assert [path.name for path in (place / "runs").iterdir()] == ["run"]


@pytest.mark.parametrize("device", ["cpu", "mps", "none", "cuda:0"])
def test_hours_of_gpus_on_a_machine_without_are_said_to_have_no_effect(device: str) -> None:
    warnings = budget_warnings(Budget(max_gpu_hours=2.5), device)
    assert len(warnings) == (device != "cuda:0")
    assert all("budget.max_gpu_hours = 2.5 has no effect" in warning for warning in warnings)
    assert budget_warnings(Budget(max_minutes=1.0), device) == []


def test_what_has_no_effect_is_said_at_the_start_in_the_report_and_beforehand(
    place: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "c.yaml").write_text(CONFIG)
    limited = ("c.yaml", "--set", "budget.max_gpu_hours=2")
    began = command("evolve", *limited).out.partition("generation 1 of 2")[0]
    assert "warning: budget.max_gpu_hours = 2 has no effect in a simulation" in began
    report = json.loads((place / "runs/run/report.json").read_text())
    assert any("max_gpu_hours" in warning for warning in report["warnings"])
    again = command(
        *("evolve", "--resume", "run", "--set", "evolution.generations=3"),
        *("--set", "budget.max_gpu_hours=3"),
    )
    assert "warning: budget.max_gpu_hours = 3 has no effect" in again.out
    monkeypatch.setattr(validate, "visible_gpus", lambda: ())
    assert "max_gpu_hours = 2 has no effect" in " ".join(command("validate", *limited).out.split())
    monkeypatch.setattr(validate, "visible_gpus", lambda: ("a GPU",))
    assert "max_gpu_hours" not in command("validate", *limited).out
