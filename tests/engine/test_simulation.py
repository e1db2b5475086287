"""Whole searches on simulated curves: reports, repetition, resuming, exit codes."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.errors import Interrupted
from coralx.records.events import (
    CheckpointRestored,
    Event,
    GenerationCompleted,
    GenerationStarted,
    StageCompleted,
    StageDecided,
    WorkerStopped,
)
from coralx.records.genomes import Genome
from coralx.records.jobs import Job
from coralx.records.results import StageResult
from coralx.records.verdicts import Finish, Promote, Stop
from coralx.storage.layout import RunLayout, find_run
from coralx.system.files import verify_folder
from tests.support.factories import PUBLISHED, STAGE_NAMES, simulated_config
from tests.support.simulated_runs import KillAfter, comparable, events_of, story

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


KEEP = {"backend": "simulated", "keep_checkpoints": "all"}


def has_keys(found: dict[str, Any], names: str) -> bool:
    return found.keys() >= set(names.split())


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> api.Outcome:
    """A run that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return evolve("whole", runtime=KEEP)


def evolve(name: str | None = None, **sections: Any) -> api.Outcome:
    return api.evolve(simulated_config(**sections), name)


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


# -- resuming ------------------------------------------------------------------------------------


def in_fixed_order(events: list[Event]) -> list[Event]:
    """Results, which come in the order of their completion, sorted behind everything else."""
    others = [event for event in events if not isinstance(event, StageCompleted)]
    results = [event for event in events if isinstance(event, StageCompleted)]
    return others + sorted(results, key=lambda e: (e.result.genome, e.result.first_step))


def without_test_figures(report: dict[str, Any]) -> dict[str, Any]:
    kept = comparable(report)
    for key in ("front", "provisional"):
        kept[key] = [{**member, "test": None} for member in kept[key]]
    return {**kept, "baselines": None}


def trainings_of(layout: RunLayout) -> list[tuple[str, str]]:
    done = [e.result for e in events_of(layout) if isinstance(e, StageCompleted)]
    return [(result.genome, result.stage) for result in done]


def assert_same_end(resumed: api.Outcome, whole: api.Outcome) -> None:
    assert in_fixed_order(story(resumed.layout)) == in_fixed_order(story(whole.layout))
    assert without_test_figures(resumed.report) == without_test_figures(whole.report)
    trainings = trainings_of(resumed.layout)
    assert len(set(trainings)) == len(trainings)  # no completed stage was trained again


@pytest.mark.parametrize(
    "killed_after",
    [
        1,
        *(2, 3, 7, 12, 17, 30, 45, 66),
    ],
)
def test_killed_and_resumed_run_ends_like_one_left_alone(
    whole: api.Outcome, killed_after: int
) -> None:
    assert len(events_of(whole.layout)) > 60
    with pytest.raises(Interrupted) as caught:
        api.evolve(simulated_config(), "cut", KillAfter(killed_after))
    assert caught.value.exit_code == 130
    assert "--resume cut" in caught.value.hint
    heard = [e for e in events_of(find_run("cut")) if not isinstance(e, WorkerStopped)]
    assert len(heard) == killed_after
    assert_same_end(api.resume(find_run("cut")), whole)


def test_run_that_is_killed_again_and_again_ends_like_one_left_alone(whole: api.Outcome) -> None:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "cut", KillAfter(4))
    layout = find_run("cut")
    interruptions = 1
    for _ in range(100):
        try:
            resumed = api.resume(layout, view=KillAfter(16))
        except Interrupted:
            interruptions += 1
            continue
        break
    assert interruptions > 3
    assert_same_end(resumed, whole)


STRATEGIES: dict[str, dict[str, Any]] = {
    "brackets": {"hyperband_config": {"brackets": 3}},
    "copies": {"evolution": {"population_size": 8, "generations": 2, "pbt_quantile": 0.5}},
    "adaptive": {"hyperband_config": {"adaptive_budgets": True}},
    "growth": {"hyperband_config": {"rank_growth": "published"}},
    "crossover": {
        "evolution": {
            "population_size": 6,
            "generations": 3,
            "checkpoint_crossover": {"mask": 0.5, "merge": 0.5},
            "elite_fraction": 0.34,
            "patience": 1,
        }
    },
    "nsga3": {
        "evolution": {"population_size": 6, "generations": 3, "selection": "nsga3"},
        "constraints": ["auroc >= 0.8"],
    },
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_resumes_to_the_same_end_from_any_event(strategy: str) -> None:
    """The ledger cut after every third event: what follows is what would have followed."""
    sections = STRATEGIES[strategy]
    undisturbed = evolve("undisturbed", runtime=KEEP, **sections)
    for killed_after in range(1, len(events_of(undisturbed.layout)), 3):
        name = f"cut-{killed_after}"
        config = simulated_config(runtime=KEEP, **sections)
        with pytest.raises(Interrupted):
            api.evolve(config, name, KillAfter(killed_after))
        assert_same_end(api.resume(find_run(name)), undisturbed)


def test_resumed_run_measures_the_same_test_figures(whole: api.Outcome) -> None:
    events = events_of(whole.layout)
    last_decision = max(i for i, e in enumerate(events) if isinstance(e, GenerationCompleted))
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "cut", KillAfter(last_decision + 1))
    assert comparable(api.resume(find_run("cut")).report) == comparable(whole.report)


@pytest.mark.parametrize(("share", "torn"), [(0.1, 0), (0.4, 25), (0.75, 1), (1.0, 1)])
def test_truncated_ledger_resumes_to_the_same_end(
    whole: api.Outcome, share: float, torn: int
) -> None:
    shutil.copytree(whole.layout.root, "runs/cut")
    layout = find_run("cut")
    lines = layout.ledger.read_bytes().splitlines(keepends=True)
    kept = max(2, int(share * (len(lines) - 1)))
    layout.ledger.write_bytes(b"".join(lines[:kept]) + lines[kept][:torn])
    assert_same_end(api.resume(layout), whole)


def test_result_whose_checkpoint_is_damaged_is_trained_again(whole: api.Outcome) -> None:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "cut", KillAfter(5))
    layout = find_run("cut")
    damaged, sound = trainings_of(layout)
    (layout.checkpoint(*damaged) / "trainer_state.json").write_text("{}", encoding="utf-8")
    resumed = api.resume(layout)
    trainings = trainings_of(layout)
    restored = [e.result for e in events_of(layout) if isinstance(e, CheckpointRestored)]
    assert [(result.genome, result.stage) for result in restored] == [damaged]
    assert (trainings.count(damaged), trainings.count(sound)) == (1, 1)
    assert story(layout) == story(whole.layout)
    assert resumed.report["front"] == whole.report["front"]


def test_resuming_a_completed_run_only_writes_its_report_again() -> None:
    outcome = evolve("done", evolution={"population_size": 4, "generations": 1})
    before = outcome.layout.ledger.read_bytes()
    outcome.layout.report.unlink()
    again = api.resume(outcome.layout)
    assert again.report == outcome.report
    assert outcome.layout.report.is_file()
    assert outcome.layout.ledger.read_bytes() == before


# -- the command line ----------------------------------------------------------------------------


@pytest.fixture
def coralx(command: Any) -> Any:
    return command


def write_config(here: Path, extra: str = "") -> str:
    path = here / "c.yaml"
    path.write_text(f"data: {{steps_per_epoch: 1000}}\n{PUBLISHED}{extra}", encoding="utf-8")
    return str(path)


def test_simulate_prints_the_published_plan_as_json(coralx: Any, here: Path) -> None:
    said = coralx("simulate", write_config(here), "--json")
    assert said.code == 0
    plan = json.loads(said.out)["plan"]
    assert {key: plan[key] for key in plan if key != "stages"} == {
        "population_size": 8,
        "generations": 2,
        "steps_per_epoch": 1000,
        "naive_steps": 16000,
        "restart_steps": 6500,
        "continue_steps": 5240,
        "restart_speedup": pytest.approx(16000 / 6500, abs=1e-4),
        "continue_speedup": pytest.approx(16000 / 5240, abs=1e-4),
    }
    keys = ("name", "genomes", "steps_per_genome", "restart_steps", "continue_steps")
    assert [tuple(stage[key] for key in keys) for stage in plan["stages"]] == [
        ("S0_sanity", 8, 2.5, 20, 20),
        ("S1_shakeout", 8, 60, 480, 460),
        ("S2_serious", 4, 1000, 4000, 3760),
        ("S3_finisher", 1, 2000, 2000, 1000),
    ]
    assert list(here.iterdir()) == [here / "c.yaml"]


def test_simulate_prints_both_accountings(coralx: Any, here: Path) -> None:
    said = coralx("simulate", write_config(here))
    assert said.code == 0
    assert all(figure in said.out for figure in ("16,000", "6,500", "5,240", "2.46x", "3.05x"))


def test_a_hundred_genomes_by_twenty_generations_simulate_in_seconds(
    coralx: Any, here: Path
) -> None:
    path = write_config(here, "evolution: {population_size: 100, generations: 20}\n")
    began = time.process_time()  # which other processes on the machine hardly lengthen
    said = coralx("simulate", path, "--json")
    assert time.process_time() - began < 20
    strategies = json.loads(said.out)["strategies"]
    assert {s["strategy"]: s["genomes"] for s in strategies} == {
        "simulation": 2000,
        "hyperband": 2000,
        "full": 2000,
    }


def test_evolve_and_report_from_the_command_line(coralx: Any, here: Path) -> None:
    path = write_config(here)
    assert coralx("evolve", path, "--mode", "simulation", "--name", "mine").code == 0
    report = json.loads((here / "runs/mine/report.json").read_text(encoding="utf-8"))
    assert json.loads(coralx("report", "mine", "--json").out) == report
    assert report["front"][0]["genome"] in coralx("report").out
    assert len((here / "runs/mine/pareto.csv").read_text().splitlines()) == 1 + len(report["front"])


def test_run_without_a_finisher_exits_with_three(coralx: Any, here: Path) -> None:
    path = write_config(here)
    exploding = "search_space.learning_rate={low: 1.0, high: 9.0}"
    said = coralx("evolve", path, "--mode", "simulation", "--quiet", "--set", exploding)
    assert said.code == 3
    assert "no genome finished" in said.err
    report = json.loads((here / "runs/run/report.json").read_text(encoding="utf-8"))
    assert report["front"] == []
    assert report["stopped"]
    assert {(s["rule"], s["value"]) for s in report["stopped"]} == {("loss is not finite", None)}
    assert coralx("report", "run").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["evolve", "missing.yaml"], 2, "missing.yaml"),
        (["simulate", "missing.yaml"], 2, "missing.yaml"),
        (["validate", "missing.yaml"], 2, "missing.yaml"),
        (["evolve"], 2, "CONFIG"),
        (["evolve", "c.yaml", "--mode", "simulation", "--backend", "peft"], 2, "contradicts"),
        (["evolve", "c.yaml", "--mode", "sideways"], 2, "sideways"),
        (["evolve", "c.yaml", "--backend", "abacus"], 2, "abacus"),
        (["evolve", "c.yaml", "--mode", "hyperband"], 2, "model.base"),
        (["simulate", "c.yaml", "--set", "evolution.generatoins=2"], 2, "'generations'"),
        (["simulate", "c.yaml", "--set", "evolution"], 2, "dotted.key=value"),
        (["evolve", "--resume", "nowhere"], 2, "nowhere"),
        (["report"], 2, "no run"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_exit_with_their_code_and_say_what_is_wrong(
    coralx: Any, here: Path, arguments: list[str], code: int, says: str
) -> None:
    write_config(here)
    said = coralx(*arguments)
    assert said.code == code
    assert says in said.err
    assert not (here / "runs").exists()


def test_damaged_run_exits_with_four_and_names_the_line(coralx: Any) -> None:
    layout = evolve("hurt", evolution={"population_size": 4, "generations": 1}).layout
    content = layout.ledger.read_bytes()
    layout.ledger.write_bytes(content.replace(b'"auroc"', b'"aurok"', 1))
    for arguments in (["report", "hurt"], ["evolve", "--resume", "hurt"]):
        said = coralx(*arguments)
        assert said.code == 4
        assert "ledger.jsonl, line" in said.err


def test_taken_name_exits_with_two_and_leaves_the_run_alone(coralx: Any, here: Path) -> None:
    layout = evolve("mine", evolution={"population_size": 4, "generations": 1}).layout
    before = layout.ledger.read_bytes()
    said = coralx("evolve", write_config(here), "--mode", "simulation", "--name", "mine")
    assert said.code == 2
    assert "--resume mine" in said.err
    assert layout.ledger.read_bytes() == before


def test_resume_under_another_config_is_refused(coralx: Any, here: Path) -> None:
    path = write_config(here)
    assert coralx("evolve", path, "--mode", "simulation", "--name", "x", "--quiet").code == 0
    said = coralx("evolve", path, "--resume", "x", "--seed", "9")
    assert said.code == 2
    assert "experiment.seed" in said.err
    assert coralx("evolve", path, "--resume", "x", "--quiet").code == 0


def test_validate_counts_the_genomes_of_each_stage(coralx: Any, here: Path) -> None:
    said = coralx("validate", write_config(here))
    assert said.code == 0
    assert "S0_sanity 8, S1_shakeout 8, S2_serious 4, S3_finisher 1" in said.out
    assert "only 1 of 8" in said.out


def test_a_simulation_never_loads_torch(here: Path) -> None:
    code = (
        "import sys, coralx.cli as c\n"
        f"sys.argv = ['coralx', 'evolve', {write_config(here)!r}, '--mode', 'simulation']\n"
        "try:\n    c.main()\n"
        "except SystemExit as end:\n"
        "    print('code', end.code, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "code 0 False False"


def test_stop_rules_stop_and_are_reported() -> None:
    outcome = evolve(evolution={"population_size": 16, "generations": 2})
    stops = [
        (v.genome, e.stage)
        for e in events_of(outcome.layout)
        if isinstance(e, StageDecided)
        for v in e.verdicts
        if isinstance(v, Stop)
    ]
    assert stops
    assert [(s["genome"], s["stage"]) for s in outcome.report["stopped"]] == stops
    breakdown = outcome.report["efficiency"]["stage_breakdown"].values()
    assert sum(row["genomes_stopped"] for row in breakdown) == len(stops)


def test_config_of_a_run_is_its_resolved_config(whole: api.Outcome) -> None:
    assert api.run_config(whole.layout) == simulated_config(runtime=KEEP)


def test_promote_by_replaces_the_objectives_at_its_stage() -> None:
    """The objectives would keep the smallest; eval_loss keeps the most skilled."""
    stages = [
        {"name": "first", "epoch_budget": 1, "data_percentage": 50, "survival_rate": 0.25},
        {"name": "last", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
    ]
    stages[0] |= {"stop_when": [], "promote_by": "eval_loss", "proxy_metrics": ["eval_loss"]}
    config = simulated_config(
        hyperband_config={"training_stages": stages},
        objectives=[{"metric": "trainable_parameters"}],
        evolution={"population_size": 12, "generations": 1},
    )
    events = events_of(api.evolve(config, "by").layout)
    losses = {
        e.result.genome: e.result.metrics["eval_loss"]
        for e in events
        if isinstance(e, StageCompleted) and e.result.stage == "first"
    }
    decided = next(e for e in events if isinstance(e, StageDecided) and e.stage == "first")
    promoted = {v.genome for v in decided.verdicts if v.kind == "promote"}
    assert promoted == set(sorted(losses, key=lambda genome: losses[genome] or 0.0)[:3])


def test_simulated_figures_keep_their_metrics_nature_and_say_what_they_are() -> None:
    outcome = evolve(
        "natures",
        model={"task": "sft"},
        objectives=[{"metric": "perplexity"}, {"metric": "trainable_parameters"}],
        constraints=["perplexity <= 10"],
    )
    for event in events_of(outcome.layout):
        if isinstance(event, StageCompleted) and event.result.divergence is None:
            figures = event.result.metrics
            assert ("perplexity" in figures) == (event.result.stage != "S0_sanity")  # of 3 steps
            if "perplexity" in figures:
                assert figures["perplexity"] == pytest.approx(math.exp(figures["eval_loss"] or 0))
    report = outcome.report
    assert report["simulated"] is True
    for member in report["front"]:
        assert member["test"]["perplexity"]["value"] > 1
        assert {f["low"] for f in member["test"].values()} == {None}
    rows = list(csv.DictReader(outcome.layout.pareto.open()))
    assert {row["simulated"] for row in rows} == {"true"}


def test_a_metric_of_the_users_own_is_simulated_in_its_direction() -> None:
    def best(direction: str) -> float:
        report = evolve(
            f"own-{direction}",
            objectives=[{"metric": "my:cost", "direction": direction}, {"metric": "auroc"}],
            evolution={"population_size": 8, "generations": 1},
        ).report
        return max(m["validation"]["auroc"] for m in report["front"])

    assert best("minimize") == best("maximize")  # what is better by it is better by skill
