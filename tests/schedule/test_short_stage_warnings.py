"""Stages of few steps: what is said of them before anything is trained."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from coralx.backends.simulated import curve_of
from coralx.records.events import StageDecided
from coralx.records.verdicts import Stop
from coralx.report.live import PlainLines
from coralx.report.opening import opening_lines
from coralx.schedule.short_stage_warnings import short_stage_warnings
from coralx.schedule.stages import FEWEST_STEPS
from tests.support.factories import (
    make_config,
    make_stages,
)
from tests.support.short_stages import PUBLISHED, played, published, started, verdicts


def test_each_stage_that_is_too_short_is_named_with_what_would_mend_it() -> None:
    config = published(1000)
    (line,) = short_stage_warnings(config, config.known_rows)
    assert line == (
        "S0 ends after 3 steps, fewer than the 8 needed to judge a genome: it is not scored, "
        "its stop rules do not act, and everyone goes on. Raise its epoch_budget to 0.16 or its "
        "data_percentage to 16, or lower the batch size"
    )
    first, second = short_stage_warnings(published(100), 1600)
    assert "S1 ends after 6 steps" in second
    assert "whatever its survival_rate (0.5)" in second
    assert "Raise its epoch_budget and that of the stages after it" in first
    assert short_stage_warnings(published(10_000), 160_000) == []
    assert short_stage_warnings(config, 0) == []
    off = published(1000, enable_hyperband=False)
    assert short_stage_warnings(off, off.known_rows) == []


@given(st.integers(30, 2800))
def test_what_would_mend_a_stage_mends_it(steps: int) -> None:
    config = published(steps)
    for line in short_stage_warnings(config, config.known_rows):
        if "epoch_budget to " not in line:
            continue
        name, budget = line.split(" ", 1)[0], line.split("epoch_budget to ")[1].split(" ", 1)[0]
        stage = next(s for s in PUBLISHED if s.name.startswith(name))
        mended = make_stages(
            (float(budget.rstrip(",")), float(100 * stage.data_fraction), 1), (9, 100, 1)
        )
        assert mended[0].trained_steps(steps) >= FEWEST_STEPS


def test_stages_whose_rules_cannot_judge_everyone_are_named() -> None:
    stages = [
        {"name": "a", "epoch_budget": 0.10, "data_percentage": 100, "survival_rate": 1},
        {"name": "b", "epoch_budget": 0.15, "data_percentage": 100, "survival_rate": 1},
        {"name": "c", "epoch_budget": 1.00, "data_percentage": 100, "survival_rate": 1},
    ]
    (line,) = short_stage_warnings(make_config(hyperband_config={"training_stages": stages}), 1600)
    assert line.startswith("b has 5 steps of its own after warm-up, fewer than the 8")
    larger = {"batch_size": {"choices": [4, 16]}}
    (line,) = short_stage_warnings(
        make_config(search_space=larger, hyperband_config={"training_stages": stages}), 1600
    )
    assert line.startswith("b has 5 to 20 steps of its own after warm-up, by batch size")


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"choices": [64, 16]}, "ends after 2 steps with batch size 64"),
        ({"choices": [16, 32, 64]}, "ends after 2 to 4 steps with batch sizes 32, 64"),
        ({"low": 8, "high": 64}, "ends after 2 to 7 steps with batch sizes 19 to 64"),
        ({"low": 16, "high": 19}, "ends after 7 steps with batch size 19"),
    ],
)
@pytest.mark.parametrize("rules", [[], ["gradient_norm > 50"]])
@pytest.mark.parametrize("rate", [0.5, 1])
def test_batches_that_are_too_large_to_compare_are_named(
    sizes: dict[str, Any], named: str, rules: list[str], rate: float
) -> None:
    stages = [
        {"name": "S0", "epoch_budget": 1, "data_percentage": 0.25, "stop_when": rules},
        {"name": "S1", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
    ]
    stages[0]["survival_rate"] = rate
    space = {"batch_size": sizes}
    config = make_config(search_space=space, hyperband_config={"training_stages": stages})
    (line,) = short_stage_warnings(config, 16 * 3200)  # 128 rows
    assert line.startswith(f"S0 {named}, fewer than the 8 needed to judge a genome")
    assert ("no stop rule acts on them" in line) == bool(rules)
    assert ("scored, ranked and cut" in line) == (rate < 1)
    assert line.endswith(f", or leave out {named.split('with ')[1]}")
    assert short_stage_warnings(config, 16 * 3200 * 4) == []


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("rule", ["gradient_norm > 50", "loss_slope > 0"])
def test_simulated_genomes_that_will_diverge_are_stopped_in_the_first_stage(
    revision: int, rule: str
) -> None:
    config = published(10_000, search_space={"learning_rate": {"low": 1e-4, "high": 0.1}})
    first, *later = config.hyperband_config.training_stages
    stages = (first.model_copy(update={"stop_when": (rule,)}), *later)
    schedule = config.hyperband_config.model_copy(update={"training_stages": stages})
    config = config.model_copy(update={"hyperband_config": schedule})
    engine = played(config, revision)
    ill = {g.id for g in engine.history.genomes.values() if curve_of(g.genes).explodes}
    stopped = {v.genome for v in verdicts(engine, "S0") if isinstance(v, Stop)}
    assert 0 < len(ill) < 8
    assert stopped == (ill if revision == 2 else set())


@pytest.mark.parametrize(("steps", "is_said"), [(1000, False), (2801, True), (10_000, True)])
def test_that_no_rule_could_act_is_said_once_before_training(steps: int, is_said: bool) -> None:
    batches = {"batch_size": {"choices": [16, 64]}}
    config = published(steps, search_space=batches)
    spoken = io.StringIO()
    view = PlainLines(Console(file=spoken, width=200))
    view.begin(config)
    view.on_event(started(config)[1])
    assert ("S0 ends after" in spoken.getvalue()) == (steps < 11_000)
    view.on_event(StageDecided(0, "S0", (), not_judged=("a",)))
    assert ("too few steps to be judged by every stop rule: a" in spoken.getvalue()) == is_said


def test_opening_and_simulate_say_so_before_anything_is_trained(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = published(100, (0.5, 0.5, 0.5, 0.5))
    _, event = started(config)
    said = opening_lines(config, event)
    assert sum("fewer than the 8 needed to judge" in line for line in said) == 2
    assert any("S0 8 x 0.25, S1 8 x 6, S2 8 x 100, S3 4 x 200" in line for line in said)
    _, event = started(config, revision=1)
    said = opening_lines(config, event)
    assert not any("fewer than the 8" in line for line in said)
    assert any("S0 8 x 0.25, S1 4 x 6, S2 2 x 100, S3 1 x 200" in line for line in said)
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("data: {steps_per_epoch: 100}\n", encoding="utf-8")
    shown = command("simulate", "c.yaml", "--json")
    plan = json.loads(shown.out)
    assert [line[:12] for line in plan["warnings"]] == ["S0_sanity en", "S1_shakeout "]
    assert [stage["genomes"] for stage in plan["plan"]["stages"]][:3] == [8, 8, 8]
    checked = command("validate", "c.yaml")
    assert "S0_sanity 8, S1_shakeout 8, S2_serious 8, S3_finisher 2" in checked.out
    assert "S1_shakeout ends after 6 steps" in checked.out
