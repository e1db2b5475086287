"""`evolution.elite_fraction`: who is carried over is not trained again, and plans know it."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.api.simulation import plan_for
from coralx.cli import main
from coralx.config.evolution import Evolution
from coralx.doctor.requirements import _kept
from coralx.errors import ConfigError
from coralx.records.events import GenerationStarted, RunStarted
from coralx.report.opening import opening_lines
from coralx.report.progress import Standings
from coralx.storage.history import History
from coralx.storage.ledger import Ledger
from tests.support.factories import PUBLISHED, simulated_config

QUIET_STAGES = [
    {"name": "A", "epoch_budget": 0.5, "data_percentage": 50, "survival_rate": 0.5},
    {"name": "B", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
]
SCHEDULE = {"training_stages": [{**stage, "stop_when": []} for stage in QUIET_STAGES]}
TAME = {"learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}}
"""Where no simulated genome diverges."""


pytestmark = pytest.mark.usefixtures("here")


def config(fraction: float, **evolution: Any) -> Any:
    return simulated_config(
        evolution={
            "population_size": 10,
            "generations": 4,
            "elite_fraction": fraction,
            **evolution,
        },
        hyperband_config=SCHEDULE,
        search_space=TAME,
    )


@pytest.mark.parametrize(
    ("size", "fraction", "births"),
    [(8, 0, 8), (8, 0.25, 6), (10, 0.29, 8), (100, 0.29, 71), (2, 0.99, 1), (3, 0.99, 1)],
)
def test_the_elite_is_an_exact_floor_and_somebody_is_always_born(
    size: int, fraction: float, births: int
) -> None:
    sizes = {"population_size": size, "elite_fraction": fraction}
    evolution = Evolution.model_validate(sizes)
    assert [evolution.births(generation) for generation in range(3)] == [size, births, births]
    assert evolution.fewest_births == births
    alone = Evolution.model_validate({**sizes, "generations": 1})
    assert alone.fewest_births == size


@given(st.integers(2, 200), st.integers(0, 99))
def test_births_and_elite_make_up_the_population(size: int, percent: int) -> None:
    evolution = Evolution(population_size=size, elite_fraction=Fraction(percent, 100))
    assert evolution.births(1) == max(1, size - percent * size // 100)


@pytest.mark.parametrize("fraction", [1, -0.1])
def test_an_elite_of_all_or_of_less_than_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"evolution\.elite_fraction: .*found"):
        config(fraction)


def test_only_the_newborn_are_trained_and_the_best_are_carried_over() -> None:
    outcome = api.evolve(config(0.4))
    events = list(Ledger.read_events(outcome.layout.ledger))
    history = History(events)
    started = [event for event in events if isinstance(event, GenerationStarted)]
    assert [len(event.genomes) for event in started] == [10, 6, 6, 6]
    assert not any(event.warnings for event in started)
    assert [len(population) for population in history.populations.values()] == [10] * 4
    for generation in range(1, 4):
        old, now = history.populations[generation - 1], history.populations[generation]
        assert set(old[:4]) <= set(now)  # six newborn can push out no more than six
    runs = [(result.genome, result.stage) for result in history.results.values()]
    assert (
        len(runs)
        == len(set(runs))
        == sum(row.genomes for row in plan_for(config(0.4)).stages)
        + (3 * sum(row.genomes for row in plan_for(config(0.4), 1).stages))
    )
    assert len({genome.genes for genome in history.genomes.values()}) == 28


@pytest.mark.parametrize("fraction", [0, 0.4])
def test_plan_opening_lines_and_time_left_agree_with_what_is_trained(fraction: float) -> None:
    wanted = config(fraction)
    outcome = api.evolve(wanted)
    events = list(Ledger.read_events(outcome.layout.ledger))
    plans = [plan_for(wanted, generation) for generation in range(4)]
    total = sum(plan.continue_steps for plan in plans)
    assert total == outcome.report["efficiency"]["actual_steps"]
    event = next(event for event in events if isinstance(event, RunStarted))
    lines = "\n".join(opening_lines(wanted, event))
    assert f"{int(total):,} steps in all" in lines
    assert f"all {28 if fraction else 40} genomes" in lines
    assert ("6 newborn in each later one" in lines) == bool(fraction)
    standings = Standings(wanted)
    standings.on_event(event)
    assert standings._planned() == (total, len(History(events).results))


def test_disk_is_planned_for_the_newborn_alone() -> None:
    wanted = config(0.4)
    assert _kept(wanted) == 19  # ten parents, six newborn, and three of them at two stages
    keep = wanted.runtime.model_copy(update={"keep_checkpoints": "all"})
    assert _kept(wanted.model_copy(update={"runtime": keep})) == (10 + 5) + 3 * (6 + 3)


def said(capsys: pytest.CaptureFixture[str], monkeypatch: Any, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["coralx", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code in (0, None)
    return capsys.readouterr().out


def test_validate_and_simulate_tell_what_later_generations_train(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = here / "c.yaml"
    evolution = "evolution: {population_size: 24, elite_fraction: 0.5}\n"
    path.write_text(f"data: {{steps_per_epoch: 1000}}\n{PUBLISHED}{evolution}", encoding="utf-8")
    text = said(capsys, monkeypatch, "validate", str(path))
    assert "S0_sanity 24, S1_shakeout 24, S2_serious 12, S3_finisher 3" in text
    assert "newborn in each later generation: S0_sanity 12" in text
    assert "only 1 of 12" in text
    one = said(capsys, monkeypatch, "validate", str(path), "--set", "evolution.generations=1")
    assert "only" not in one
    assert "newborn" not in one
    text = said(capsys, monkeypatch, "simulate", str(path))
    assert "trains only its 12 newborn (S0_sanity 12" in text
    plans = json.loads(said(capsys, monkeypatch, "simulate", str(path), "--json"))
    assert plans["plan"]["population_size"] == 24
    assert plans["later_plan"]["population_size"] == 12
    plain = said(
        capsys, monkeypatch, "simulate", str(path), "--json", "--set", "evolution.elite_fraction=0"
    )
    assert "later_plan" not in json.loads(plain)
