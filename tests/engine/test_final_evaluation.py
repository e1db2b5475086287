"""What cannot be measured at a run's end costs no adapter, is told, and is tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.engine import engine
from coralx.errors import ConfigError, DamagedRunError, OutOfMemory, WorkerError
from coralx.execution.executor import AnyJob, JobOutcome, StatusUpdate
from coralx.execution.inprocess import InProcessExecutor
from coralx.execution.local import LocalExecutor
from coralx.execution.messages import Failed
from coralx.records.events import AttemptFailed, FrontCompared, MeasurementFailed, RunCompleted
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import JobFailed, MeasureJob
from coralx.records.results import Measurement
from coralx.records.subjects import FRESH
from coralx.report.live import Silent
from coralx.storage.ledger import Ledger
from tests.support.factories import simulated_config

LENIENT = {
    "training_stages": [
        {"name": "S0", "epoch_budget": 0.5, "data_percentage": 20, "survival_rate": 1.0},
        {"name": "S1", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
    ]
}
"""Everyone goes on, so that the front has several members."""

Faulty = dict[str | None, Exception]


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def faulty() -> Faulty:
    """Whom the backend cannot measure, for a test to fill and to empty."""
    return {}


@pytest.fixture
def asked(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Who was to be measured, in order."""
    measure, found = SimulatedBackend.measure, list[str | None]()

    def watched(self: SimulatedBackend, job: MeasureJob, beat: Any) -> Measurement:
        name = job.genome.id if job.genome else None
        found.append(name)
        if name in faulty:
            raise faulty[name]
        return measure(self, job, beat)

    monkeypatch.setattr(SimulatedBackend, "measure", watched)
    return found


def evolve(name: str = "run", **runtime: Any) -> api.Outcome:
    runtime = {"backend": "simulated", **runtime}
    return api.evolve(simulated_config(hyperband_config=LENIENT, runtime=runtime), name)


def front_of(outcome: api.Outcome) -> list[str]:
    return [member["genome"] for member in outcome.report["front"]]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("index out of range"), "ValueError: index out of range"),
        (ConfigError("config", ["own:f1: no such row"]), "own:f1: no such row"),
        (OutOfMemory("out of memory: 2 GiB"), "out of memory: 2 GiB"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("whom", ["a member", "the base", "all"])
def test_a_resume_measures_what_could_not_be_measured_and_nothing_else(
    whom: str, error: Exception, reason: str, faulty: Faulty, asked: list[str | None]
) -> None:
    whole = evolve("whole")
    front, everyone = front_of(whole), list(asked)
    assert len(front) > 1
    named: list[str | None] = [front[0]] if whom == "a member" else [None]
    faulty |= dict.fromkeys([None, *front] if whom == "all" else named, error)
    asked.clear()
    outcome = evolve()
    report = outcome.report
    assert asked == everyone  # nobody is left out, nobody is tried twice
    assert front_of(outcome) == front
    assert report["completed"] is False
    assert report["not_measured"] == [{"genome": n, "reason": reason} for n in faulty]
    assert sum(f"not be measured on the test split: {reason}" in w for w in report["warnings"]) == (
        len(faulty)
    )
    for member in report["front"]:
        assert (member["test"] is None) == (member["genome"] in faulty)
    assert (report["baselines"]["untuned"] is None) == (None in faulty)
    assert json.loads(outcome.layout.report.read_text()) == report

    wanted = list(faulty)
    faulty.clear()
    asked.clear()
    again = api.resume(outcome.layout)
    assert asked == wanted
    assert again.report["completed"] is True
    assert again.report["not_measured"] == []
    for key in ("front", "baselines", "warnings"):
        assert again.report[key] == whole.report[key]
    asked.clear()
    assert api.resume(outcome.layout).report["completed"] is True
    assert asked == []


def test_a_process_tries_nobody_twice_and_the_next_one_does(
    faulty: Faulty, asked: list[str | None]
) -> None:
    faulty[None] = ValueError("no")
    outcome = evolve(verify_front=True, baseline=True)
    assert asked.count(None) == 1
    again = api.resume(outcome.layout)
    assert asked.count(None) == 2
    assert again.report["not_measured"] == [{"genome": None, "reason": "ValueError: no"}]


def test_what_is_trained_beside_the_search_is_no_exception(
    faulty: Faulty, asked: list[str | None]
) -> None:
    config = simulated_config(
        experiment={"name": "sim", "seed": 0},
        evolution={"population_size": 10, "generations": 3, "resize_adapters": True},
        hyperband_config=LENIENT,
        runtime={"backend": "simulated", "verify_front": True, "baseline": True},
    )
    whole = api.evolve(config, "whole")
    verified = [m["genome"] for m in whole.report["verification"]["members"]]
    fresh = FRESH + verified[0]
    assert fresh in asked
    faulty |= {fresh: ValueError("no"), "_baseline": ValueError("no")}
    outcome = api.evolve(config, "run")
    (member,) = (m for m in outcome.report["verification"]["members"] if m["state"] == "failed")
    assert (member["genome"], member["reason"]) == (
        verified[0],
        "could not be measured: ValueError: no",
    )
    pairs = [e for e in Ledger.read_events(outcome.layout.ledger) if isinstance(e, FrontCompared)]
    assert not any(fresh in (c.first, c.second) for event in pairs for c in event.pairs)
    assert not outcome.report["completed"]
    faulty.clear()
    again = api.resume(outcome.layout).report
    assert again["verification"] == whole.report["verification"]
    assert again["completed"]


def test_a_run_without_workers_left_keeps_its_front(
    asked: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = InProcessExecutor._done

    def done(self: InProcessExecutor, task: AnyJob, *others: Any) -> JobOutcome:
        if isinstance(task, MeasureJob) and task.genome is not None:
            raise WorkerError("worker 3 could not start: no memory")
        return work(self, task, *others)

    monkeypatch.setattr(InProcessExecutor, "_done", done)
    outcome = evolve()
    failed = {row["genome"]: row["reason"] for row in outcome.report["not_measured"]}
    assert set(front_of(outcome)) <= set(failed)
    assert set(failed.values()) == {"worker 3 could not start: no memory"}
    assert asked == [None]


def test_an_error_after_the_search_loses_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(*_: Any) -> None:
        raise DamagedRunError("scores: missing")

    monkeypatch.setattr(engine, "compare", compare)
    with pytest.raises(DamagedRunError):
        evolve()
    report = json.loads(Path("runs/run/report.json").read_text())
    assert report["front"]


def test_the_terminal_says_it_and_the_exit_code_is_that_of_a_result(
    command: Callable[..., Any], faulty: Faulty, asked: list[str | None]
) -> None:
    config = simulated_config(hyperband_config=LENIENT)
    Path("c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    faulty[None] = ValueError("index out of range")
    said = command("evolve", "c.yaml", "--name", "loud")
    assert said.code == 0
    warning = "untuned could not be measured on the test split: ValueError: index out of range"
    assert f"warning: {warning}" in said.out
    assert "To try again: coralx evolve --resume loud" in said.out
    assert asked.count(None) == 1
    events = list(Ledger.read_events(Path("runs/loud/ledger.jsonl")))
    assert MeasurementFailed(None, "ValueError: index out of range") in events
    assert not any(isinstance(event, RunCompleted) for event in events)


def test_adapters_are_handed_over_all_the_same(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from coralx.config import parse_config
    from coralx.training.evaluation import Evaluation

    def measured(*_: Any) -> Measurement:
        raise IndexError("index out of range in self")

    tiny_config["evolution"] = {"population_size": 2, "generations": 1}
    tiny_config["runtime"] = {"executor": "in-process"}
    tiny_config["hyperband_config"]["training_stages"] = [
        {"name": "S0", "epoch_budget": 1, "data_percentage": 20, "survival_rate": 1.0}
    ]
    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "measured", measured)
        outcome = api.evolve(parse_config(tiny_config, "t"), "run", Silent())
    front = front_of(outcome)
    assert front
    for genome in front:
        assert (outcome.layout.best_adapter(genome) / "adapter_model.safetensors").is_file()
    assert len(outcome.report["not_measured"]) == len(front) + 2  # base and head
    again = api.resume(outcome.layout).report
    assert again["completed"]
    assert again["not_measured"] == []


def test_a_worker_that_finds_fault_with_a_measurement_goes_on() -> None:
    class Stub:
        job: AnyJob | None = MeasureJob(Genome("g", 0, Genes()), None)
        began = 0.0

    worker, executor = cast("Any", Stub()), LocalExecutor("simulated")
    told: list[StatusUpdate] = []
    executor._listener = told.append
    failed = Failed("ConfigError", "2 problems", "", True, "", ("own:f1: no such row",))
    assert list(executor._handle(worker, failed)) == [JobFailed("g", "test", "own:f1: no such row")]
    assert worker.job is None
    (attempt,) = told
    assert isinstance(attempt, AttemptFailed)
    assert (attempt.genome, attempt.stage, attempt.seconds > 0) == ("g", "test", True)
