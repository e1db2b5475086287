"""`runtime.verify_front`: the front trained once more from scratch, beside the search."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.cli import main
from coralx.config import Config, parse_config
from coralx.errors import Interrupted
from coralx.records.events import Event, FrontMeasured, StageCompleted, TrainedBeside
from coralx.records.jobs import Job
from coralx.records.results import Divergence, StageResult
from coralx.records.subjects import (
    BASELINE,
    FRESH,
    HEAD,
    Baseline,
    FromScratch,
    Searched,
    id_of,
    subject_of,
    title_of,
)
from coralx.report.live import LiveTable, PlainLines, Silent
from coralx.report.progress import Standings
from coralx.report.terminal import print_report
from coralx.report.verification import verification_parts
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Ledger
from coralx.system.files import canonical_json, verify_folder
from tests.support.factories import make_result, simulated_config
from tests.support.simulated_runs import KillAt, events_of_kind

STAGES = [
    {"name": "S0", "epoch_budget": 0.5, "data_percentage": 20, "survival_rate": 1.0},
    {"name": "S1", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
]
"""Everyone goes on, so that the front has several members: 1000 steps each."""


pytestmark = pytest.mark.usefixtures("here")


def config(*, verify: bool = True, derive: float = 0, **sections: Any) -> Config:
    """Without derived genomes, unless they are what it is about."""
    runtime = {"backend": "simulated", "verify_front": verify, **sections.pop("runtime", {})}
    defaults = {
        "experiment": {"name": "sim", "seed": 0},
        "evolution": {"population_size": 10, "generations": 3, "resize_adapters": True},
        "hyperband_config": {"training_stages": STAGES},
    }
    chosen = {**defaults, **sections}
    chosen["evolution"] = {**chosen["evolution"], "derive": {"share": derive}}
    return simulated_config(runtime=runtime, **chosen)


def retrained(layout: RunLayout) -> list[str]:
    trained = [event.result.genome for event in events_of_kind(layout, TrainedBeside)]
    return [name for name in trained if name != HEAD]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The training jobs that the backend is given."""
    train, given = SimulatedBackend.train, []

    def watched(self: SimulatedBackend, job: Job, report: Any, beat: Any) -> StageResult:
        given.append(job)
        return train(self, job, report, beat)

    monkeypatch.setattr(SimulatedBackend, "train", watched)
    return given


def front_of(outcome: api.Outcome) -> tuple[list[str], list[str]]:
    """The front's heirs, and those that were trained from scratch."""
    members = outcome.report["front"]
    heirs = [m["genome"] for m in members if m["lineage_steps"] > m["own_steps"]]
    return heirs, [m["genome"] for m in members if m["genome"] not in heirs]


def test_heirs_are_trained_from_scratch_in_one_go_and_no_one_else_is(jobs: list[Job]) -> None:
    outcome = api.evolve(config(), "run")
    heirs, others = front_of(outcome)
    assert len(heirs) > 1
    fresh = {job.genome.parents[0]: job for job in jobs if job.genome.id.startswith(FRESH)}
    assert list(fresh) == heirs
    history = History(Ledger.read_events(outcome.layout.ledger))
    for name, job in fresh.items():
        own = [other for other in jobs if other.genome.id == name]
        assert job.genome.genes == own[-1].genome.genes
        assert (job.first_step, job.last_step) == (0, own[-1].last_step)
        assert job.horizon == own[-1].horizon
        assert job.data_fraction == 1.0
        assert (job.resume_from, job.inherit_from, job.inherited_steps) == (None, None, 0)
        assert job.checkpoint == str(outcome.layout.checkpoint(FRESH + str(name), "S1"))
        verify_folder(Path(job.checkpoint))
    found = outcome.report["verification"]
    assert found["trained_from_scratch"] == others
    assert [member["genome"] for member in found["members"]] == heirs
    for member in found["members"]:
        assert (member["state"], member["fresh_steps"]) == ("verified", 1000)
        assert (member["own_steps"], member["lineage_steps"] > 1000) == (1000, True)
        result = history.trained_beside[FromScratch(member["genome"]), "S1"]
        assert member["fresh"]["validation"] == result.metrics
        inherited = next(m for m in outcome.report["front"] if m["genome"] == member["genome"])
        assert member["inherited"]["validation"] == inherited["validation"]
        assert member["inherited"]["test"] == inherited["test"]
        for side in ("inherited", "fresh"):
            assert 0.5 < member[side]["test"]["auroc"]["value"] <= 1
        assert member["fresh"]["test"] != member["inherited"]["test"]


def test_verifying_changes_nothing_of_the_search_and_counts_apart() -> None:
    plain, verified = api.evolve(config(verify=False), "a"), api.evolve(config(), "b")
    assert plain.report["verification"] is None
    for key in ("front", "lineage", "convergence", "efficiency", "provisional", "stopped"):
        assert verified.report[key] == plain.report[key], key
    assert retrained(plain.layout) == []
    assert events_of_kind(plain.layout, StageCompleted)[0].result.metrics == (
        events_of_kind(verified.layout, StageCompleted)[0].result.metrics
    )


def test_a_finished_run_is_only_verified_and_only_once(jobs: list[Job]) -> None:
    done = api.evolve(config(verify=False), "run")
    heirs, _ = front_of(done)
    jobs.clear()
    verified = api.resume(done.layout, config())
    assert [job.genome.id for job in jobs] == [FRESH + name for name in heirs]
    assert verified.report["front"] == done.report["front"]
    at_once = api.evolve(config(), "at-once").report["verification"]
    assert verified.report["verification"] == at_once
    jobs.clear()
    before = done.layout.ledger.read_bytes()
    assert api.resume(done.layout).report == verified.report
    assert api.read_report(done.layout) == verified.report
    assert (jobs, done.layout.ledger.read_bytes()) == ([], before)


@pytest.mark.parametrize(
    ("kind", "count"), [(TrainedBeside, 1), (TrainedBeside, 2), (FrontMeasured, -1)]
)
def test_a_verification_that_was_killed_goes_on_where_it_was(kind: type[Event], count: int) -> None:
    whole = api.evolve(config(), "whole")
    if count < 0:
        count = len(events_of_kind(whole.layout, kind))
    with pytest.raises(Interrupted):
        api.evolve(config(), "cut", KillAt(kind, count))
    layout = find_run("cut")
    resumed = api.resume(layout)
    assert retrained(layout) == retrained(whole.layout)
    measured = [event.measurement.genome for event in events_of_kind(layout, FrontMeasured)]
    assert len(set(measured)) == len(measured)
    assert resumed.report["verification"] == whole.report["verification"]
    assert resumed.report["completed"]


def test_what_was_trained_beside_the_search_is_not_pruned() -> None:
    """Asynchronous promotion prunes whenever a run is taken up again."""
    schedule = {"training_stages": STAGES, "promotion": "asynchronous"}
    with pytest.raises(Interrupted):
        api.evolve(config(hyperband_config=schedule), "cut", KillAt(TrainedBeside, 1))
    layout = find_run("cut")
    (first,) = retrained(layout)
    resumed = api.resume(layout)
    assert retrained(layout).count(first) == 1
    verify_folder(layout.checkpoint(first, "S1"))
    assert {m["state"] for m in resumed.report["verification"]["members"]} == {"verified"}


def test_a_result_whose_checkpoint_is_damaged_is_trained_again() -> None:
    with pytest.raises(Interrupted):
        api.evolve(config(), "cut", KillAt(TrainedBeside, 2))
    layout = find_run("cut")
    damaged, sound = retrained(layout)
    (layout.checkpoint(damaged, "S1") / "trainer_state.json").write_text("{}", encoding="utf-8")
    resumed = api.resume(layout)
    trained = retrained(layout)
    assert (trained.count(damaged), trained.count(sound)) == (2, 1)
    assert {m["state"] for m in resumed.report["verification"]["members"]} == {"verified"}


def test_steps_beyond_the_budget_are_not_trained_until_it_allows_them() -> None:
    plain = api.evolve(config(verify=False), "plain")
    spent = sum(e.result.steps for e in events_of_kind(plain.layout, StageCompleted))
    heirs, _ = front_of(plain)
    assert len(heirs) > 1
    cut = api.evolve(config(budget={"max_steps": spent + 1_500}), "cut")
    assert retrained(cut.layout) == [FRESH + heirs[0]]
    states = [member["state"] for member in cut.report["verification"]["members"]]
    assert states == ["verified"] + ["pending"] * (len(heirs) - 1)
    assert cut.report["completed"]
    assert retrained(api.resume(cut.layout).layout) == [FRESH + heirs[0]]
    done = api.resume(cut.layout, config(budget={"max_steps": 10**6}))
    assert retrained(done.layout) == [FRESH + name for name in heirs]
    assert {m["state"] for m in done.report["verification"]["members"]} == {"verified"}


def test_no_verification_begins_once_the_time_is_up() -> None:
    done = api.evolve(config(verify=False), "run")
    late = api.resume(done.layout, config(budget={"max_minutes": 1e-9}))
    assert retrained(late.layout) == []
    assert {m["state"] for m in late.report["verification"]["members"]} == {"pending"}
    assert "has not been trained from scratch yet" in shown(late)


def test_a_search_that_its_budget_ended_is_not_verified_yet() -> None:
    cut = api.evolve(config(budget={"max_steps": 8_000}), "cut")
    assert cut.report["ended_by"] is not None
    assert retrained(cut.layout) == []


@pytest.mark.parametrize(
    "sections",
    [
        {"hyperband_config": {"enable_hyperband": False, "training_stages": STAGES}},
        {"evolution": {"population_size": 6, "generations": 2, "inherit": "off"}},
    ],
    ids=["full", "off"],
)
def test_where_nobody_inherits_there_is_nothing_to_verify(sections: dict[str, Any]) -> None:
    outcome = api.evolve(config(**sections), "run")
    assert retrained(outcome.layout) == []
    front = [member["genome"] for member in outcome.report["front"]]
    assert front
    assert outcome.report["verification"] == {"members": [], "trained_from_scratch": front}
    assert "Nothing to verify: every member of the front was trained from scratch" in shown(outcome)
    plain = api.evolve(config(verify=False, **sections), "plain")
    asked = api.resume(plain.layout, config(**sections))
    assert asked.report["verification"] == outcome.report["verification"]
    assert api.read_report(plain.layout) == asked.report


def test_one_that_diverges_from_scratch_is_told_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = SimulatedBackend.train
    tried = []

    def diverging(self: SimulatedBackend, job: Job, report: Any, beat: Any) -> StageResult:
        result = train(self, job, report, beat)
        if not job.genome.id.startswith(FRESH):
            return result
        tried.append(job.genome.id)
        return replace(result, metrics={}, checkpoint=None, divergence=Divergence(7, "loss"))

    monkeypatch.setattr(SimulatedBackend, "train", diverging)
    outcome = api.evolve(config(), "run")
    for member in outcome.report["verification"]["members"]:
        assert (member["state"], member["fresh"]) == ("diverged", None)
    assert "from scratch diverged: loss is not finite at step 7" in shown(outcome)
    api.resume(outcome.layout)
    assert len(tried) == len(set(tried)) > 0


def test_copies_of_population_based_training_are_heirs_too() -> None:
    evolution = {"population_size": 16, "generations": 1, "pbt_quantile": 0.5}
    outcome = api.evolve(config(evolution=evolution), "run")
    copies = {e["genome"] for e in outcome.report["lineage"] if e["continues"]}
    heirs, _ = front_of(outcome)
    assert heirs
    assert set(heirs) <= copies
    assert list(dict.fromkeys(retrained(outcome.layout))) == [FRESH + name for name in heirs]
    fresh = [event.result for event in events_of_kind(outcome.layout, TrainedBeside)]
    assert [result.first_step for result in fresh] == [0, 100] * len(heirs)  # stage by stage


def test_baseline_and_verification_go_beside_each_other() -> None:
    space = {"rank": {"choices": [2, 4]}}  # the default recipe lies outside
    outcome = api.evolve(config(search_space=space, runtime={"baseline": True}), "run")
    names = retrained(outcome.layout)
    assert names[:2] == [BASELINE, BASELINE]
    heirs, _ = front_of(outcome)
    assert names[2:] == [FRESH + name for name in heirs]
    assert outcome.report["baselines"]["default_recipe"] is not None


def test_an_older_ledger_that_names_only_the_baseline_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    event = TrainedBeside(make_result(BASELINE, {"auroc": 0.5}, stage="S1"))
    Ledger(path).append(event)
    entry = json.loads(path.read_text())
    body = {key: entry[key] for key in ("seq", "time", "payload")} | {"type": "BaselineTrained"}
    entry = body | {"checksum": hashlib.sha256(canonical_json(body).encode()).hexdigest()}
    path.write_text(canonical_json(entry) + "\n")
    assert Ledger.read_events(path) == [event]
    assert History(Ledger.read_events(path)).baseline == {"S1": event.result}


# -- the command line and what a person sees -----------------------------------------------------


def shown(outcome: api.Outcome, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    print_report(outcome.report, console)
    return console.export_text()


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


# -- with real gradients -------------------------------------------------------------------------


def test_real_adapters_are_verified_and_compared(tiny_config: dict[str, Any]) -> None:
    tiny_config["runtime"] |= {"executor": "in-process", "verify_front": True}
    tiny_config["objectives"] = [{"metric": "auroc"}, {"metric": "eval_loss"}]
    with pytest.raises(Interrupted):
        api.evolve(
            parse_config(tiny_config, "tiny.yaml"), "tiny", KillAt(TrainedBeside, 2)
        )  # 1: the head
    layout = find_run("tiny")
    outcome = api.resume(layout)
    heirs, others = front_of(outcome)
    assert heirs
    assert retrained(layout) == [FRESH + name for name in heirs]
    found = outcome.report["verification"]
    assert found["trained_from_scratch"] == others
    for member in found["members"]:
        assert member["state"] == "verified"
        assert (layout.root / member["adapter"] / "adapter_model.safetensors").is_file()
        assert [d["metric"] for d in member["differences"]] == ["auroc", "eval_loss"]
        for difference in member["differences"]:
            metric = difference["metric"]
            ours, theirs = (member[s]["test"][metric]["value"] for s in ("inherited", "fresh"))
            assert difference["difference"] == ours - theirs
            assert difference["low"] <= ours - theirs <= difference["high"]
    efficiency = outcome.report["efficiency"]
    assert efficiency["verification_steps"] == 36 * len(heirs)
    assert efficiency["verification_time"] > 0
    assert efficiency["actual_steps"] == 252
    front = [member["genome"] for member in outcome.report["front"]]
    kept = {path.stem for path in layout.test_scores.iterdir()}
    assert kept == {"_untuned", HEAD, *front, *(FRESH + name for name in heirs)}
    assert len(outcome.report["front_pairs"]) == len(front) * (len(front) - 1)
    text = shown(outcome)
    assert "Inherited against fresh on auroc" in text
    assert "In addition, verifying the front took" in text
    assert "Ancestry of the front" in text
    assert {path.name for path in layout.best.iterdir()} == set(front)


def test_a_copy_is_verified_by_its_lineages_hyperparameters(jobs: list[Job]) -> None:
    """Population-based training: the schedule that a lineage went through, replayed from scratch,
    stage by stage."""
    stages = [
        {"name": name, "epoch_budget": epochs, "data_percentage": 100, "survival_rate": 1.0}
        for name, epochs in (("S0", 0.1), ("S1", 0.5), ("S2", 1.0))
    ]
    evolution = {"population_size": 12, "generations": 1, "pbt_quantile": 0.5}
    outcome = api.evolve(
        config(hyperband_config={"training_stages": stages}, evolution=evolution), "pbt"
    )
    history = History(Ledger.read_events(outcome.layout.ledger))
    copies = [m for m in outcome.report["front"] if history.genomes[m["genome"]].continues]
    assert copies
    for member in copies:
        name = member["genome"]
        fresh = [job for job in jobs if job.genome.id == FRESH + name]
        assert [(job.stage, job.first_step) for job in fresh] == [
            ("S0", 0),
            ("S1", 100),
            ("S2", 500),
        ]
        assert [row["stage"] for row in member["schedule"]] == ["S0", "S1", "S2"]
        for job, row in zip(fresh, member["schedule"], strict=True):
            trained = history.results[row["genome"], row["stage"]]
            assert trained.last_step == job.last_step
            assert job.genome.genes == history.genomes[row["genome"]].genes
            assert job.genome.genes.learning_rate == row["learning_rate"]
        assert len({row["genome"] for row in member["schedule"]}) > 1
        verified = [v for v in outcome.report["verification"]["members"] if v["genome"] == name]
        assert [(v["state"], v["fresh_steps"]) for v in verified] == [("verified", 1000)]
