"""`coralx simulate`, and other commands on simulated curves."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.records.events import (
    StageCompleted,
    StageDecided,
)
from coralx.records.verdicts import Stop
from tests.support.factories import PUBLISHED, simulated_config
from tests.support.simulated_runs import events_of
from tests.support.simulations import KEEP, evolve

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> api.Outcome:
    """A run that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return evolve("whole", runtime=KEEP)


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


def test_simulate_says_which_priors_apply_and_why(coralx: Any, here: Path) -> None:
    path = write_config(here, "model: {base: 'builtin:minilm'}\n")
    prior = json.loads(coralx("simulate", path, "--json").out)["priors"]
    assert {name: (p["center"], p["spread"]) for name, p in prior.items()} == {
        "learning_rate": (0.001, 0.8)
    }
    source = prior["learning_rate"]["source"]
    assert source.startswith("encoder, 384 wide: ")
    line = f"prior: learning_rate about 0.001, spread 0.8 decades (source: {source})"
    assert line in coralx("simulate", path).out.splitlines()
    assert line in coralx("validate", path).out.splitlines()
    named = "search_space.learning_rate={low: 1e-4, high: 1e-2, log: true}"
    assert json.loads(coralx("simulate", path, "--json", "--set", named).out)["priors"] == {}


def test_simulate_says_that_adaptive_rungs_change_the_plan(coralx: Any, here: Path) -> None:
    config = write_config(here)
    adaptive = coralx("simulate", config, "--set", "hyperband_config.rungs=adaptive").out
    assert "a control group goes on beside the best" in adaptive
    assert "control group" not in coralx("simulate", config).out


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
