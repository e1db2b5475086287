"""`runtime.verify_front`: what the command line and the views say of it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coralx.api import runs as api
from coralx.cli import main
from coralx.config import Config
from coralx.records.events import Event
from coralx.records.subjects import (
    BASELINE,
    FRESH,
    Baseline,
    FromScratch,
    Searched,
    id_of,
    subject_of,
    title_of,
)
from coralx.report.live import LiveTable, PlainLines, Silent
from coralx.report.progress import Standings
from coralx.report.verification import verification_parts
from tests.support.verified_runs import STAGES, config, front_of, shown

pytestmark = pytest.mark.usefixtures("here")


def test_both_sides_stand_in_the_terminal_whatever_its_width() -> None:
    outcome = api.evolve(config(), "run")
    heirs, others = front_of(outcome)
    for width in (60, 80, 120):
        text = shown(outcome, width)
        assert "Front verified: inherited weights against fresh ones" in text
        for member in outcome.report["verification"]["members"]:
            assert f"{member['fresh']['validation']['auroc']:.4f}" in text
            assert f"{member['fresh']['test']['auroc']['value']:.4f}" in text
    assert ("trained from scratch in the search: " + ", ".join(others) in text) == bool(others)
    assert all(f"{name}" in text for name in heirs)
    assert verification_parts({**outcome.report, "verification": None}) == []


def test_what_can_be_said_of_the_difference_is_said() -> None:
    def member(name: str, low: float, high: float) -> dict[str, Any]:
        figures = {"validation": {"auroc": 0.8}, "test": {}}
        difference = {
            "metric": "auroc",
            "difference": (low + high) / 2,
            "low": low,
            "high": high,
            "indistinguishable": low <= 0 <= high,
        }
        return {
            "genome": name,
            "state": "verified",
            "reason": None,
            "own_steps": 1,
            "lineage_steps": 2,
            "fresh_steps": 1,
            "inherited": figures,
            "fresh": figures,
            "differences": [difference],
        }

    members = [member("a", 0.1, 0.2), member("b", -0.1, 0.2), member("c", -0.2, -0.1)]
    for direction, better, worse in (("maximize", "a", "c"), ("minimize", "c", "a")):
        report = {
            "objectives": [{"metric": "auroc", "direction": direction}],
            "front": [{}],
            "verification": {"members": members, "trained_from_scratch": []},
        }
        lines = [str(part) for part in verification_parts(report)]
        assert (
            f"Inherited against fresh on auroc, each at 95 %, uncorrected: better: {better}; "
            f"worse: {worse}; indistinguishable: b." in lines
        )


@pytest.fixture
def coralx(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["coralx", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert not caught.value.code, captured
        return captured.out + captured.err

    return run


def test_the_flag_verifies_a_new_run_and_a_finished_one(coralx: Any, here: Path) -> None:
    values = {
        "data": {"steps_per_epoch": 200},
        "experiment": {"seed": 0},
        "evolution": {
            "population_size": 10,
            "generations": 3,
            "resize_adapters": True,
            "derive": {"share": 0},
        },
        "hyperband_config": {"training_stages": STAGES},
        "runtime": {"backend": "simulated"},
    }
    (here / "c.yaml").write_text(json.dumps(values), encoding="utf-8")
    new = coralx("evolve", "c.yaml", "--name", "new", "--verify-front")
    assert "and 200 steps for each genome that is verified" in new
    assert "from scratch, S1: 200 steps" in new
    assert "Front verified" in new
    assert "Front verified" not in coralx("evolve", "c.yaml", "--name", "old", "--quiet")
    later = coralx("evolve", "--resume", "old", "--verify-front", "--quiet")
    assert "Front verified" in later
    again = coralx("evolve", "c.yaml", "--resume", "old", "--quiet")  # the run's wish stays
    assert "Front verified" in again
    reports = [
        json.loads((here / "runs" / name / "report.json").read_text()) for name in ("new", "old")
    ]
    assert reports[0]["verification"] == reports[1]["verification"]


class Watch(Silent):
    """What the live view would say while something is trained beside the search."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, config: Config) -> None:
        self.standings = Standings(config)

    def absorb(self, event: Event) -> None:
        self.standings.on_event(event)

    def on_event(self, event: Event) -> None:
        self.standings.on_event(event)
        if self.standings.is_searched:
            self.said.append(self.standings.closing())


def test_the_views_show_that_verification_goes_on() -> None:
    watch = Watch()
    outcome = api.evolve(config(), "run", watch)
    heirs, _ = front_of(outcome)
    assert watch.said[0] == watch.said[-1] == "measuring baselines and front on the test split"
    assert f"verifying the front: 0 of {len(heirs)} trained from scratch" in watch.said
    spoken = io.StringIO()
    api.evolve(config(), "spoken", PlainLines(Console(file=spoken, width=200)))
    for name in heirs:
        assert f"{name} from scratch, S1: 1,000 steps" in spoken.getvalue()
        assert f"test split: {name} from scratch auroc" in spoken.getvalue()
    drawn = io.StringIO()
    console = Console(file=drawn, width=200, force_terminal=True)
    with LiveTable(console) as live:
        api.evolve(config(), "live", live)


def test_what_is_beside_the_search_has_a_title() -> None:
    names = (None, BASELINE, "g00-01", FRESH + "g00-01")
    assert [title_of(name) for name in names] == [
        "untuned",
        "default recipe",
        "g00-01",
        "g00-01 from scratch",
    ]
    assert [subject_of(name) for name in names] == [
        Baseline.UNTUNED,
        Baseline.DEFAULT_RECIPE,
        Searched("g00-01"),
        FromScratch("g00-01"),
    ]
    assert [id_of(subject_of(name)) for name in names] == list(names)
