"""The trained head beside a search: measured and compared, and never at its expense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.config import parse_config
from coralx.config.mode import resolve_mode
from coralx.errors import Interrupted
from coralx.records.events import (
    AttemptFailed,
    FrontMeasured,
    GenomeFailed,
    MeasurementFailed,
    TrainedBeside,
)
from coralx.records.jobs import Job, MeasureJob
from coralx.records.mode import Mode
from coralx.records.results import Measurement, StageResult
from coralx.records.run_facts import Facts, Footprint
from coralx.records.subjects import HEAD, title_of
from coralx.report.baseline_names import baseline_title, untuned_head
from coralx.report.front_comparison import comparison_lines
from coralx.report.live import Silent
from coralx.storage.layout import find_run
from coralx.storage.ledger import Ledger
from coralx.storage.overheads import Overheads
from tests.support.factories import make_facts, simulated_config
from tests.support.simulated_runs import KillAt, events_of_kind

pytestmark = pytest.mark.usefixtures("here")


LENIENT = {
    "training_stages": [
        {"name": "S0", "epoch_budget": 0.5, "data_percentage": 20, "survival_rate": 1.0},
        {"name": "S1", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
    ]
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have simulations train a head; who was trained or measured of it, in order."""
    backend, found = SimulatedBackend, list[str]()
    prepare, train, measure = backend.prepare, backend.train, backend.measure

    def with_head(*arguments: Any) -> Facts:
        return replace(prepare(*arguments), trains_head=True)

    def trained(self: SimulatedBackend, job: Job, *arguments: Any) -> StageResult:
        found.extend(["train"] * (job.genome.id == HEAD))
        return train(self, job, *arguments)

    def measured(self: SimulatedBackend, job: MeasureJob, *arguments: Any) -> Measurement:
        found.extend(["measure"] * (job.genome is not None and job.genome.id == HEAD))
        return measure(self, job, *arguments)

    for name, patched in (("prepare", with_head), ("train", trained), ("measure", measured)):
        monkeypatch.setattr(backend, name, patched)
    return found


def simulated(name: str = "run", view: Silent | None = None, **sections: Any) -> api.Outcome:
    return api.evolve(simulated_config(hyperband_config=LENIENT, **sections), name, view)


def test_a_real_run_is_held_against_a_head_that_was_trained_once(
    tiny_config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from coralx.report.terminal import print_report

    tiny_config["runtime"] |= {"executor": "in-process"}
    tiny_config["evolution"] |= {"generations": 1}
    tiny_config["objectives"] = [{"metric": "auroc"}]
    with pytest.raises(Interrupted):
        api.evolve(parse_config(tiny_config, "tiny.yaml"), "tiny", KillAt(TrainedBeside))
    layout = find_run("tiny")
    outcome = api.resume(layout)
    report = outcome.report
    assert report["completed"]
    (trained,) = events_of_kind(layout, TrainedBeside)
    assert trained.result.genome == HEAD
    assert [e.measurement.genome for e in events_of_kind(layout, FrontMeasured)].count(HEAD) == 1
    members = [member["genome"] for member in report["front"]]
    assert HEAD not in {*members, *(m["genome"] for m in report["provisional"])}
    assert HEAD not in {path.name for path in layout.best.iterdir()}
    assert list(report["baselines"]) == ["untuned", "trained_head", "default_recipe"]
    head = report["baselines"]["trained_head"]
    assert head["auroc"] > 0.6
    assert head["trainable_parameters"] == 66
    rows = [r for r in report["front_against_baselines"] if r["baseline"] == "trained_head"]
    assert [(row["genome"], row["metric"]) for row in rows] == [(m, "auroc") for m in members]
    for row, member in zip(rows, report["front"], strict=True):
        assert row["difference"] == member["test"]["auroc"]["value"] - head["auroc"]
        assert row["low"] < row["difference"] < row["high"]
    (line,) = [text for text in comparison_lines(report) if "frozen base" in text]
    assert "; than a trained head on the frozen base: " in line
    efficiency = report["efficiency"]
    assert efficiency["total_genomes"] == 4
    assert efficiency["head_passes"] == trained.result.steps
    assert efficiency["head_time"] > trained.result.seconds
    print_report(report, Console(width=200))
    shown = capsys.readouterr().out
    assert "trained head" in shown
    assert "In addition, training a head on the frozen base took" in shown
    before = len(Ledger.read_events(layout.ledger))
    api.resume(layout)  # nothing is left to do
    assert len(Ledger.read_events(layout.ledger)) == before


def test_killed_before_it_was_measured_it_is_measured_and_made_again_where_it_was_lost(
    asked: list[str],
) -> None:
    whole = simulated("whole")
    assert asked == ["train", "measure"]
    assert whole.report["baselines"]["trained_head"]["auroc"] > 0.4
    for lost in (False, True):
        asked.clear()
        with pytest.raises(Interrupted):
            simulated(f"cut-{lost}", KillAt(TrainedBeside))
        layout = find_run(f"cut-{lost}")
        if lost:
            (layout.checkpoint(HEAD, "S1") / "trainer_state.json").unlink()
        outcome = api.resume(layout)
        assert asked == ["train", *["train"] * lost, "measure"]
        assert outcome.report["completed"]
        for key in ("baselines", "front"):
            assert outcome.report[key] == whole.report[key]


@pytest.mark.usefixtures("asked")
def test_no_failure_of_it_costs_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulated("whole")
    train, measure, faulty = SimulatedBackend.train, SimulatedBackend.measure, {"train"}

    def fail_train(self: SimulatedBackend, job: Job, *arguments: Any) -> StageResult:
        if "train" in faulty and job.genome.id == HEAD:
            raise ValueError("no such head")
        return train(self, job, *arguments)

    def fail_measure(self: SimulatedBackend, job: MeasureJob, *arguments: Any) -> Measurement:
        if "measure" in faulty and job.genome is not None and job.genome.id == HEAD:
            raise ValueError("no such text")
        return measure(self, job, *arguments)

    monkeypatch.setattr(SimulatedBackend, "train", fail_train)
    monkeypatch.setattr(SimulatedBackend, "measure", fail_measure)
    failed = simulated("failed")
    assert failed.report["completed"]
    assert failed.report["front"] == whole.report["front"]
    assert failed.report["baselines"]["trained_head"] is None
    assert [row["reason"] for row in failed.report["failed"]] == ["ValueError: no such head"]
    (event,) = events_of_kind(failed.layout, GenomeFailed)
    assert event.genome == HEAD

    faulty.clear()
    faulty.add("measure")
    unmeasured = simulated("unmeasured")
    assert not unmeasured.report["completed"]
    assert unmeasured.report["front"] == whole.report["front"]
    (told,) = events_of_kind(unmeasured.layout, MeasurementFailed)
    assert (told.genome, told.reason) == (HEAD, "ValueError: no such text")
    assert any(
        warning.startswith("trained head on the frozen base could not be measured")
        for warning in unmeasured.report["warnings"]
    )
    faulty.clear()
    again = api.resume(unmeasured.layout)
    assert again.report["completed"]
    assert again.report["baselines"] == whole.report["baselines"]


def test_a_resume_tries_again_to_train_it(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, faulty = SimulatedBackend.train, [True]

    def fail(self: SimulatedBackend, job: Job, *arguments: Any) -> StageResult:
        if job.genome.id == HEAD and faulty:
            raise ValueError("no such head")
        return train(self, job, *arguments)

    monkeypatch.setattr(SimulatedBackend, "train", fail)
    with pytest.raises(Interrupted):
        simulated(view=KillAt(GenomeFailed))
    faulty.clear()
    report = api.resume(find_run("run")).report
    assert report["completed"]
    assert report["failed"] == []
    assert report["baselines"]["trained_head"] is not None
    assert asked == ["train", "measure"]


@pytest.mark.parametrize("mode", ["simulation", "full"])
def test_it_is_no_part_of_the_search_nor_of_what_that_cost(
    mode: Mode, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve_mode(simulated_config(hyperband_config=LENIENT), mode, None)
    with_head = api.evolve(config, "with").report
    events = events_of_kind(find_run("with"), TrainedBeside)
    assert [event.result.genome for event in events] == [HEAD]
    unlike = {"run", "wall_seconds", "baselines", "workers", "hardware", "profile"}
    unlike |= {"front_against_baselines"}
    prepare = SimulatedBackend.prepare

    def without_head(*arguments: Any) -> Facts:
        return replace(prepare(*arguments), trains_head=False)

    monkeypatch.setattr(SimulatedBackend, "prepare", without_head)
    without = api.evolve(config, "without").report
    assert asked == ["train", "measure"]
    assert without["baselines"].keys() == {"untuned", "default_recipe"}
    for key in with_head.keys() - unlike:
        assert with_head[key] == without[key], key


def test_nothing_is_trained_where_the_search_brought_no_front(asked: list[str]) -> None:
    diverging = {"learning_rate": {"low": 0.5, "high": 0.9}}
    report = api.evolve(simulated_config(search_space=diverging), "none").report
    assert report["front"] == []
    assert asked == []


def test_seconds_of_it_are_none_of_the_searchs() -> None:
    spent = Overheads()
    spent.apply(AttemptFailed(HEAD, "S1", 2.0))
    spent.apply(FrontMeasured(Measurement(HEAD, {}, {}, seconds=3.0)))
    assert (spent.head, spent.measuring, spent.attempts) == (5.0, 0.0, [])


# -- in words --------------------------------------------------------------------------------------


def test_a_head_is_called_random_only_where_the_base_came_without_one() -> None:
    config = simulated_config()
    footprint = Footprint(1000, 4000, 8, 16, 1, (), head_parameters=18)
    new = replace(make_facts(), footprint=footprint)
    own = replace(make_facts(), footprint=replace(footprint, head_parameters=0))
    assert untuned_head(config, new) == "random head"
    assert untuned_head(config, own) is None
    assert baseline_title("trained_head", {}) == "trained head (frozen base)"
    assert title_of(HEAD) == "trained head on the frozen base"
