"""`coralx stage`: a schedule driven stage by stage, on simulated curves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coralx.cli.app import app
from coralx.errors import ConfigError, CoralXError, NoResultError, UsageError
from coralx.records.events import FrontMeasured, GenerationCompleted, RunCompleted, StageDecided
from coralx.storage.ledger import Ledger

CONFIG = "data: {steps_per_epoch: 400}\nevolution: {population_size: 8, generations: 3}\n"
STAGES = ["S0_sanity", "S1_shakeout", "S2_serious", "S3_finisher"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> None:
    """Run a command; its known errors come through."""
    result = CliRunner().invoke(app, [*arguments, "--mode", "simulation", "--quiet"])
    if result.exception is not None:
        raise result.exception


def decided(folder: Path) -> list[object]:
    kinds = (StageDecided, GenerationCompleted, FrontMeasured, RunCompleted)
    return [e for e in Ledger.read_events(folder / "ledger.jsonl") if isinstance(e, kinds)]


def test_all_stages_make_the_decisions_of_one_generation_of_evolve(place: Path) -> None:
    for stage in STAGES:
        invoke("stage", "c.yaml", stage, "--run", "staged")
    invoke("evolve", "c.yaml", "--name", "whole", "--set", "evolution.generations=1")
    assert decided(place / "runs/staged") == decided(place / "runs/whole")
    report = json.loads((place / "runs/staged/report.json").read_text())
    assert report["completed"]
    assert report["front"]
    assert report["front"][0]["test"]["auroc"]["value"] is not None


def test_without_a_run_the_later_stages_go_on_with_the_newest(place: Path) -> None:
    invoke("stage", "c.yaml", "S0_sanity")
    invoke("stage", "c.yaml", "S0_sanity")
    invoke("stage", "c.yaml", "S1_shakeout")
    assert [len(decided(place / f"runs/{name}")) for name in ("run", "run-2")] == [1, 2]


@pytest.mark.parametrize(
    ("done", "wanted", "says", "hint"),
    [
        (1, "S2_serious", "is not the next one", "next stage is S1_shakeout"),
        (2, "S1_shakeout", "is already completed", "next stage is S2_serious"),
        (2, "S0_sanity", "is already completed", "next stage is S2_serious"),
        (4, "S3_finisher", "has completed all its stages", "coralx stage CONFIG S0_sanity"),
        (1, "S9", "has no stage 'S9'", "S0_sanity, S1_shakeout, S2_serious, S3_finisher"),
    ],
)
def test_a_stage_that_is_not_the_next_is_refused(
    place: Path, done: int, wanted: str, says: str, hint: str
) -> None:
    for stage in STAGES[:done]:
        invoke("stage", "c.yaml", stage, "--run", "r")
    before = (place / "runs/r/ledger.jsonl").read_bytes()
    with pytest.raises(UsageError, match=says) as error:
        invoke("stage", "c.yaml", wanted, "--run", "r")
    assert hint in error.value.hint
    assert (place / "runs/r/ledger.jsonl").read_bytes() == before


def test_a_later_stage_without_any_run_is_refused(place: Path) -> None:
    with pytest.raises(CoralXError, match="no run named 'run'"):
        invoke("stage", "c.yaml", "S1_shakeout")
    assert not (place / "runs").exists()


def test_a_last_stage_that_was_killed_while_measuring_can_be_called_again(place: Path) -> None:
    for stage in STAGES:
        invoke("stage", "c.yaml", stage, "--run", "r")
    ledger = place / "runs/r/ledger.jsonl"
    whole = decided(place / "runs/r")
    lines = ledger.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"type":"StageDecided"' in line)
    ledger.write_bytes(b"".join(lines[: last + 1]))
    invoke("stage", "c.yaml", "S3_finisher", "--run", "r")
    assert decided(place / "runs/r") == whole


@pytest.mark.usefixtures("place")
def test_a_stage_goes_on_under_its_own_config_alone() -> None:
    invoke("stage", "c.yaml", "S0_sanity", "--run", "r")
    with pytest.raises(UsageError, match=r"training\.batch_size"):
        invoke("stage", "c.yaml", "S1_shakeout", "--run", "r", "--set", "training.batch_size=4")
    with pytest.raises(NoResultError, match="S1_shakeout was not completed"):
        invoke("stage", "c.yaml", "S1_shakeout", "--run", "r", "--set", "budget.max_steps=20")
    invoke("stage", "c.yaml", "S1_shakeout", "--run", "r", "--set", "budget.max_steps=20000")


@pytest.mark.parametrize("name", ["..", "latest", "-x", "a b"])
def test_a_first_stage_makes_no_run_of_an_impossible_name(place: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.name"):
        invoke("stage", "c.yaml", "S0_sanity", f"--run={name}")
    assert [path.name for path in place.iterdir()] == ["c.yaml"]
