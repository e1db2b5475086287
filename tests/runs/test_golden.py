"""Run folders of earlier versions, kept as they were written: they must load for ever."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.api.session import run_config
from coralx.cli import main
from coralx.config import parse_config
from coralx.records.events import (
    CODES,
    Event,
    GenerationCompleted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
)
from coralx.records.genomes import Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.serialization import from_json, to_json
from coralx.report.pareto_table import pareto_csv
from coralx.report.summary import summarise
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import FORMAT, Ledger
from coralx.storage.unchanged_inputs import changes_between
from coralx.system.files import canonical_json, verify_folder, write_folder
from tests.support.factories import make_genome
from tests.support.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"
RUNS = ("simulated", "trained")


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def coralx(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["coralx", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(str(caught.value.code or 0))

    return run


RECKONED_ANEW = (
    "total_training_time",
    "estimated_full_training_time",
    "time_savings",
    "efficiency_ratio",
    "naive_steps",
    "actual_steps",
    "step_ratio",
    "restart_steps",
    "restart_step_ratio",
)


def copied(name: str) -> RunLayout:
    """A copy of a golden run under ./runs. The simulated one gets its checkpoints back, which are
    but a sign that a stage is done."""
    shutil.copytree(GOLDEN / name, Path("runs") / name)
    layout = RunLayout(Path("runs") / name)
    if name == "simulated":
        for event in Ledger.read_events(layout.ledger):
            if isinstance(event, StageCompleted | TrainedBeside) and event.result.checkpoint:
                folder = layout.checkpoint(event.result.genome, event.result.stage)
                write_folder(folder, lambda target: (target / "trainer_state.json").touch())
    return layout


def assert_holds(found: Any, golden: Any, where: str = "report") -> None:
    """Every key and value of `golden` is in `found`, which may have further keys."""
    if isinstance(golden, dict):
        assert isinstance(found, dict), where
        assert golden.keys() <= found.keys(), where
        for key, value in golden.items():
            assert_holds(found[key], value, f"{where}.{key}")
    elif isinstance(golden, list):
        assert isinstance(found, list), where
        assert len(found) == len(golden), where
        for place, value in enumerate(golden):
            assert_holds(found[place], value, f"{where}[{place}]")
    elif isinstance(golden, float):
        assert found == pytest.approx(golden, rel=1e-9), where  # libraries may round otherwise
    else:
        assert found == golden, where


def golden_report(name: str) -> dict[str, Any]:
    """The report as it was written, but for what it cost against full training: that was reckoned
    otherwise then, and too high."""
    report: dict[str, Any] = json.loads((GOLDEN / name / "report.json").read_text("utf-8"))
    for key in RECKONED_ANEW:
        del report["efficiency"][key]
    return report


def decided(layout: RunLayout) -> list[Event]:
    events = Ledger.read_events(layout.ledger)
    return [event for event in events if isinstance(event, StageDecided | GenerationCompleted)]


@pytest.mark.parametrize("name", RUNS)
def test_every_event_of_a_golden_ledger_is_read_and_survives_json(name: str) -> None:
    events = Ledger.read_events(GOLDEN / name / "ledger.jsonl")
    assert History(events).started.format <= FORMAT
    for event in events:
        assert from_json(type(event), json.loads(canonical_json(to_json(event)))) == event


def test_the_golden_runs_hold_every_event_of_their_versions_that_tells_of_no_fault() -> None:
    kinds = {type(e) for name in RUNS for e in Ledger.read_events(GOLDEN / name / "ledger.jsonl")}
    assert {code for code, kind in CODES.items() if kind not in kinds} <= {
        "AttemptFailed",
        "CheckpointRestored",
        "DerivationFailed",
        "GenomeDerived",  # no genome was derived in those versions
        "GenomeFailed",
        "MeasurementFailed",
    }
    verdicts = {
        verdict.kind
        for name in RUNS
        for event in decided(RunLayout(GOLDEN / name))
        for verdict in getattr(event, "verdicts", ())
    }
    assert verdicts == {"promote", "finish", "cut", "stop", "replace"}


@pytest.mark.parametrize("name", RUNS)
def test_the_report_made_anew_holds_all_that_the_golden_one_does(name: str) -> None:
    layout = RunLayout(GOLDEN / name)
    report = summarise(run_config(layout), Ledger.read(layout.ledger), layout)
    assert_holds(json.loads(json.dumps(report)), golden_report(name))
    golden_columns = layout.pareto.read_text("utf-8").splitlines()[0].split(",")
    assert golden_columns == pareto_csv(report).splitlines()[0].split(",")[: len(golden_columns)]


@pytest.mark.parametrize("name", RUNS)
def test_coralx_report_prints_a_golden_run(
    name: str, coralx: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    copied(name)
    assert coralx("report", name) == 0
    printed = capsys.readouterr().out
    assert all(member["genome"] in printed for member in golden_report(name)["front"])
    assert coralx("report", name, "--json") == 0
    assert_holds(json.loads(capsys.readouterr().out), golden_report(name))


def test_resuming_a_finished_golden_run_writes_the_reports_that_it_lacks(
    coralx: Callable[..., int],
) -> None:
    layout = copied("simulated")
    before = layout.ledger.read_bytes()
    layout.report.unlink()
    layout.pareto.unlink()
    assert coralx("evolve", "--resume", "simulated", "--quiet") == 0
    assert_holds(json.loads(layout.report.read_text("utf-8")), golden_report("simulated"))
    assert layout.pareto.is_file()
    assert layout.ledger.read_bytes() == before


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_golden_run_that_was_cut_resumes_to_the_same_end(
    share: float, coralx: Callable[..., int]
) -> None:
    layout = copied("simulated")
    lines = layout.ledger.read_bytes().splitlines(keepends=True)
    layout.ledger.write_bytes(b"".join(lines[: round(share * len(lines))]))
    assert coralx("evolve", "--resume", "simulated", "--quiet") == 0
    assert decided(layout) == decided(RunLayout(GOLDEN / "simulated"))
    front = json.loads(layout.report.read_text("utf-8"))["front"]
    for member, golden in zip(front, golden_report("simulated")["front"], strict=True):
        assert_holds(member | {"test": None}, golden | {"test": None})


def test_adapters_of_a_golden_run_are_whole_and_can_be_trained_on(
    tiny_config: dict[str, Any], here: Path
) -> None:
    """The base is that of the golden run: the same weights, drawn from the same seed."""
    from coralx.backends.protocol import create

    layout = RunLayout(GOLDEN / "trained")
    history = History(Ledger.read_events(layout.ledger))
    for folder in (*layout.best.iterdir(), *layout.checkpoints.glob("*/*")):
        verify_folder(folder)
    member = golden_report("trained")["front"][0]["genome"]
    checkpoint = layout.checkpoint(member, "S3_finisher")
    done = history.results[checkpoint.parent.name, checkpoint.name]
    genome: Genome = history.genomes[done.genome]
    tiny_config["experiment"]["seed"] = run_config(layout).experiment.seed  # splits the data
    backend = create("peft")
    assert history.started is not None
    revision = history.started.settings.revision
    facts = backend.prepare(parse_config(tiny_config, "test"), None, 1, lambda _: None, revision)
    assert changes_between(history.started.facts, facts) == []
    told = changes_between(replace(history.started.facts, fingerprint="21698-0"), facts)
    assert ["the data changed" in change for change in told] == [True]
    job = Job(
        genome=genome,
        stage="on",
        first_step=done.last_step,
        last_step=done.last_step,
        horizon=Horizon(done.last_step, 0),
        data_fraction=1.0,
        checkpoint=str(here / "on"),
        resume_from=str(checkpoint),
    )
    again = backend.train(job, lambda _: None)
    assert again.metrics["auroc"] == pytest.approx(done.metrics["auroc"], abs=1e-3)
    heir = Job(
        genome=make_genome("heir", genome.genes, 2),
        stage="on",
        first_step=0,
        last_step=3,
        horizon=Horizon(3, 0),
        data_fraction=1.0,
        checkpoint=None,
        inherit_from=str(checkpoint),
        inherit_optimizer=True,
    )
    inherited = backend.train(heir, lambda _: None).inheritance
    assert inherited is not None
    assert inherited.error == pytest.approx(0.0, abs=1e-6)
