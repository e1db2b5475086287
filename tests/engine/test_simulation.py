"""Whole searches on simulated curves: reports, repetition, resuming, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.errors import Interrupted
from coralx.records.events import (
    GenerationStarted,
    StageCompleted,
    StageDecided,
)
from coralx.records.genomes import Genome
from coralx.records.jobs import Job
from coralx.records.results import StageResult
from coralx.records.verdicts import Finish, Promote
from coralx.storage.layout import RunLayout, find_run
from coralx.system.files import verify_folder
from tests.support.factories import STAGE_NAMES, simulated_config
from tests.support.simulated_runs import KillAfter, comparable, events_of, story
from tests.support.simulations import KEEP, evolve

REPORT_KEYS = """
    run mode seed backend device versions generations population_size wall_seconds objectives
    baselines front provisional efficiency stopped"""
MEMBER_KEYS = """
    genome generation parents genes stage validation test own_steps lineage_steps adapter"""
STAGE_KEYS = """
    genomes_trained genomes_stopped genomes_promoted planned_steps trained_steps total_time
    avg_time epoch_budget survival_rate"""
EFFICIENCY_KEYS = """
    total_genomes stage_breakdown total_training_time estimated_full_training_time time_savings
    efficiency_ratio naive_steps actual_steps step_ratio"""


def has_keys(found: dict[str, Any], names: str) -> bool:
    return found.keys() >= set(names.split())


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> api.Outcome:
    """A run that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return evolve("whole", runtime=KEEP)


# -- the report ----------------------------------------------------------------------------------


def test_report_has_its_keys_and_matches_the_file() -> None:
    outcome = evolve()
    report = outcome.report
    assert json.loads(outcome.layout.report.read_text(encoding="utf-8")) == report
    assert has_keys(report, REPORT_KEYS)
    assert (report["mode"], report["backend"], report["seed"]) == ("simulation", "simulated", 7)
    assert report["run"] == "sim"
    assert (report["generations"], report["population_size"]) == (3, 6)
    assert report["objectives"] == [
        {"metric": "auroc", "direction": "maximize"},
        {"metric": "trainable_parameters", "direction": "minimize"},
    ]
    assert report["baselines"].keys() == {"untuned", "default_recipe"}
    assert report["baselines"]["untuned"]["auroc"] == pytest.approx(0.5, abs=0.05)
    assert report["front"]
    members = (*report["front"], *report["provisional"])
    assert all(has_keys(member, MEMBER_KEYS) for member in members)
    for member in report["front"]:
        assert member["stage"] == "S3_finisher"
        assert member["own_steps"] == 2000
        assert member["lineage_steps"] >= member["own_steps"]
        for interval in member["test"].values():
            assert interval["value"] is not None
            assert interval["low"] is interval["high"] is None
    assert all(member["stage"] != "S3_finisher" for member in report["provisional"])
    assert all(
        entry.keys() == {"genome", "stage", "step", "rule", "value"} for entry in report["stopped"]
    )
    efficiency = report["efficiency"]
    assert has_keys(efficiency, EFFICIENCY_KEYS)
    assert tuple(efficiency["stage_breakdown"]) == STAGE_NAMES
    assert all(has_keys(row, STAGE_KEYS) for row in efficiency["stage_breakdown"].values())


def test_front_is_non_dominated_and_best_skill_first() -> None:
    front = evolve(evolution={"population_size": 20, "generations": 2}).report["front"]
    figures = [(m["validation"]["auroc"], m["validation"]["trainable_parameters"]) for m in front]
    assert len(figures) > 1
    assert figures == sorted(figures, reverse=True)  # less skill must come with fewer parameters
    assert len({size for _, size in figures}) == len(figures)


def test_undisturbed_generation_costs_what_the_plan_says() -> None:
    stages = [
        {"epoch_budget": e, "data_percentage": d, "survival_rate": s, "name": n, "stop_when": []}
        for n, e, d, s in zip(
            STAGE_NAMES, (0.05, 0.3, 1, 2), (5, 20, 100, 100), (1.0, 0.5, 0.25, 0.1), strict=True
        )
    ]
    efficiency = evolve(
        evolution={"population_size": 8, "generations": 1},
        hyperband_config={"training_stages": stages},
        search_space={"learning_rate": {"low": 5e-4, "high": 1e-3}},
    ).report["efficiency"]
    rows = efficiency["stage_breakdown"].values()
    assert [row["genomes_trained"] for row in rows] == [8, 8, 4, 1]
    assert [row["genomes_promoted"] for row in rows] == [8, 4, 1, 1]
    assert [row["planned_steps"] for row in rows] == [20, 460, 3760, 1000]
    assert [row["trained_steps"] for row in rows] == [24, 456, 3760, 1000]
    assert (efficiency["naive_steps"], efficiency["actual_steps"]) == (16000, 5240)
    assert f"{efficiency['step_ratio']:.2f}" == "3.05"
    seconds = sum(row["total_time"] for row in rows)
    assert efficiency["total_training_time"] == pytest.approx(seconds, abs=0.01)
    saved = efficiency["estimated_full_training_time"] - efficiency["total_training_time"]
    assert efficiency["time_savings"] == pytest.approx(saved, abs=0.01)
    ratio = efficiency["estimated_full_training_time"] / efficiency["total_training_time"]
    assert efficiency["efficiency_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_full_mode_trains_everyone_to_the_end() -> None:
    report = evolve(hyperband_config={"enable_hyperband": False}).report
    assert report["mode"] == "full"
    assert report["efficiency"]["naive_steps"] == report["efficiency"]["actual_steps"] == 36000
    assert report["stopped"] == report["provisional"] == []


# -- inheritance ---------------------------------------------------------------------------------


def genomes_of(layout: RunLayout) -> dict[str, Genome]:
    """All genomes of a run by id, in order of birth."""
    started = [event for event in events_of(layout) if isinstance(event, GenerationStarted)]
    return {genome.id: genome for event in started for genome in event.genomes}


@pytest.mark.parametrize(
    "sections",
    [
        {"hyperband_config": {"enable_hyperband": False}},
        {"evolution": {"population_size": 6, "generations": 3, "inherit": "off"}},
    ],
    ids=["full", "off"],
)
def test_nobody_inherits_in_full_mode_or_with_inheritance_off(sections: dict[str, Any]) -> None:
    genomes = genomes_of(evolve(**sections).layout)
    assert len(genomes) == 18
    assert {genome.inherits for genome in genomes.values()} == {None}


def test_lineage_adds_up_along_inherited_weights(whole: api.Outcome) -> None:
    events = events_of(whole.layout)
    lineage: dict[str | None, int] = {None: 0}
    heirs = 0
    genomes = genomes_of(whole.layout)
    for event in events:
        if isinstance(event, StageCompleted):
            donor = genomes[event.result.genome].inherits
            heirs += donor is not None
            assert event.result.inherited_steps == lineage[donor]
            lineage[event.result.genome] = event.result.inherited_steps + event.result.last_step
    assert heirs
    for member in whole.report["front"]:
        assert member["lineage_steps"] == lineage[member["genome"]]


@pytest.mark.parametrize("killed_after", [0, 25])
def test_checkpoint_that_a_job_starts_from_is_never_pruned(
    monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    train = SimulatedBackend.train
    started_from = []

    def watched(self: SimulatedBackend, job: Job, report: Any, beat: Any) -> StageResult:
        for source in (job.resume_from, job.inherit_from):
            if source is not None:
                verify_folder(Path(source))
                started_from.append(source)
        return train(self, job, report, beat)

    monkeypatch.setattr(SimulatedBackend, "train", watched)
    if killed_after:
        with pytest.raises(Interrupted):
            api.evolve(simulated_config(), "x", KillAfter(killed_after))
        outcome = api.resume(find_run("x"))
    else:
        outcome = evolve("x")
    assert any("S0_sanity" in source for source in started_from)
    assert any("S2_serious" in source for source in started_from)
    for member in outcome.report["front"]:
        verify_folder(outcome.layout.checkpoint(member["genome"], "S3_finisher"))
    left = {path.parent.name for path in outcome.layout.checkpoints.glob("*/*")}
    assert len(left) < len(genomes_of(outcome.layout))


# -- repetition ----------------------------------------------------------------------------------


def test_equal_seeds_make_equal_decisions_and_another_seed_does_not() -> None:
    small = {"population_size": 5, "generations": 2}
    first, second = evolve(evolution=small), evolve(evolution=small)
    assert (first.layout.name, second.layout.name) == ("sim", "sim-2")
    assert story(first.layout) == story(second.layout)
    assert comparable(first.report) == comparable(second.report)
    other = evolve(experiment={"name": "sim", "seed": 8}, evolution=small)
    assert story(other.layout) != story(first.layout)


def test_ids_and_genes_of_founders_do_not_depend_on_mode_or_name() -> None:
    layouts = [
        evolve("one").layout,
        evolve("two", hyperband_config={"enable_hyperband": False}).layout,
    ]
    founders = [
        next(e for e in events_of(layout) if isinstance(e, GenerationStarted)) for layout in layouts
    ]
    assert founders[0] == founders[1]
    assert list(genomes_of(layouts[0])) == list(genomes_of(layouts[1]))


def test_nothing_is_bred_or_trained_twice() -> None:
    layout = evolve(evolution={"population_size": 10, "generations": 4}).layout
    events = events_of(layout)
    genes = [genome.genes for genome in genomes_of(layout).values()]
    assert len(genes) == 40
    assert len(set(genes)) == 40
    trained = [(e.result.genome, e.result.stage) for e in events if isinstance(e, StageCompleted)]
    assert len(set(trained)) == len(trained)


def test_who_enters_a_stage_was_promoted_from_the_one_before(whole: api.Outcome) -> None:
    events = events_of(whole.layout)
    decided = {(e.generation, e.stage): e.verdicts for e in events if isinstance(e, StageDecided)}
    assert len(decided) == 12
    for (generation, stage), verdicts in decided.items():
        entered = {v.genome for v in verdicts}
        place = STAGE_NAMES.index(stage)
        if place:
            before = decided[generation, STAGE_NAMES[place - 1]]
            assert entered == {v.genome for v in before if isinstance(v, Promote)}
        else:
            assert len(entered) == 6
        assert any(isinstance(v, Finish) for v in verdicts) <= (stage == "S3_finisher")
