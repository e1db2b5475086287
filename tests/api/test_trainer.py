"""The Python interface: `HyperbandTrainer` with real gradients, and its example script."""

from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

pytest.importorskip("torch")

from coralx import Genome, HyperbandTrainer, LoRAConfig, TrainingResult, TrainingStage
from coralx.errors import UsageError

STAGES = [
    TrainingStage("S0_sanity", 1.0, 20, 1.0),
    TrainingStage("S1_shakeout", 1.0, 60, 0.75),
    TrainingStage("S2_finisher", 2.0, 100, 1.0),
]
MODULES = ["query", "value"]


def healthy(name: str, rank: int = 4, rate: float = 1e-2) -> Genome:
    lora = LoRAConfig(r=rank, alpha=rank, dropout=0.1, target_modules=MODULES, learning_rate=rate)
    return Genome(id=name, lora_cfg=lora)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    tiny_config["runtime"]["executor"] = "in-process"
    tiny_config["runtime"]["keep_checkpoints"] = "all"
    return tiny_config


def metrics(results: list[TrainingResult]) -> dict[tuple[str, str], Any]:
    return {(result.genome_id, result.stage): dict(result.metrics) for result in results}


def test_a_population_is_trained_stage_by_stage(config: dict[str, Any]) -> None:
    trainer = HyperbandTrainer(config, stages=STAGES)
    population = [healthy("a"), healthy("b", rank=3), healthy("c.1", rank=64), Genome("d")]
    results = trainer.train_population(population)
    assert [result.stage for result in results] == (
        ["S0_sanity"] * 4 + ["S1_shakeout"] * 4 + ["S2_finisher"] * 3
    )
    assert {result.genome_id for result in results} == {"a", "b", "c.1", "d"}
    for result in results:
        assert result.training_time > 0
        assert result.checkpoint_path is not None
        assert (result.checkpoint_path / "adapter_model.safetensors").is_file()
        state = json.loads((result.checkpoint_path / "adapter_config.json").read_text())
        assert state["r"] == {"a": 4, "b": 3, "c.1": 64, "d": 16}[result.genome_id]
    assert trainer.run_folder is not None
    space = yaml.safe_load((trainer.run_folder / "config.yaml").read_text())["search_space"]
    assert (space["rank"]["low"], space["rank"]["high"]) == (3, 64)  # what a worker tries before
    assert (space["dropout"]["low"], space["dropout"]["high"]) == (0.0, 0.1)
    assert space["target_modules"]["choices"] == [MODULES, "all-linear"]
    assert space["use_dora"] is None
    report = trainer.get_training_efficiency_report(results)
    assert report["step_ratio"] > 1
    assert report["efficiency_ratio"] > 0
    assert report["stage_breakdown"]["S1_shakeout"]["genomes_trained"] == 4
    assert trainer.run_folder is not None
    on_disk = json.loads((trainer.run_folder / "report.json").read_text())
    assert report == on_disk["efficiency"]
    last = {result.genome_id: result.metrics.get("auroc") for result in results}
    assert {genome.id: genome.fitness for genome in population} == last


def test_a_genome_without_a_learning_rate_gets_the_default_recipes(
    config: dict[str, Any],
) -> None:
    trainer = HyperbandTrainer(config, stages=STAGES[:1])
    trainer.train_population([Genome("d", parent_id="someone")])
    assert trainer.run_folder is not None
    (member,) = json.loads((trainer.run_folder / "report.json").read_text())["front"]
    assert member["genes"]["learning_rate"] == 2e-4
    assert member["parents"] == ["someone"]


def test_one_seed_one_result_whoever_else_is_there(config: dict[str, Any]) -> None:
    alone = HyperbandTrainer(config, stages=STAGES).train_population([healthy("a")])
    crowd = [healthy("b", 8), healthy("a"), healthy("c", 2, 3e-3)]
    together = HyperbandTrainer(config, stages=STAGES).train_population(crowd)
    ours = metrics(alone)
    assert len(ours) == 3
    assert all(metrics(together).get(key, found) == found for key, found in ours.items())
    assert len(ours.keys() & metrics(together).keys()) >= 2


@pytest.mark.parametrize("source", ["path", "dict", "loaded"])
def test_config_may_be_a_path_a_mapping_or_loaded(
    config: dict[str, Any], source: str, place: Path
) -> None:
    from coralx.config import parse_config

    (place / "c.yaml").write_text(yaml.safe_dump(config))
    given: dict[str, Any] = {
        "path": place / "c.yaml",
        "dict": config,
        "loaded": parse_config(config, "c"),
    }
    trainer = HyperbandTrainer(given[source])
    assert trainer.stages[0] == TrainingStage("S0_sanity", 1.0, 10.0, 1.0)


@pytest.mark.parametrize(
    ("genomes", "says"),
    [
        ([], "empty"),
        ([healthy("a"), healthy("a")], "share the id 'a'"),
        ([healthy("../a")], "cannot name a folder"),
        ([Genome("a", LoRAConfig(r=0))], "genome 'a': rank.*found 0"),
        ([Genome("a", LoRAConfig(dropout=1.5))], "genome 'a': dropout.*found 1.5"),
        ([Genome("a", LoRAConfig(learning_rate=-1.0))], "learning_rate.*found -1.0"),
        ([Genome("a", LoRAConfig(alpha=0))], "alpha.*found 0"),
        ([Genome("a", LoRAConfig(target_modules=[]))], "target_modules"),
    ],
)
def test_a_population_that_cannot_be_trained_is_refused(
    config: dict[str, Any], genomes: list[Genome], says: str, place: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        HyperbandTrainer(config).train_population(genomes)
    assert not (place / "runs").exists()


def test_no_report_before_training(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="nothing has been trained"):
        HyperbandTrainer(config).get_training_efficiency_report()


def test_planted_genomes_are_stopped_by_the_right_rule_at_the_right_stage(
    config: dict[str, Any],
) -> None:
    """One that explodes, one that gives NaN, one that learns nothing; a healthy one goes on."""
    stages = config["hyperband_config"]["training_stages"]
    for stage, rules in zip(
        stages,
        (["gradient_norm > 50.0", "loss_slope > 0"], ["auroc < 0.55"], ["auroc < 0.55"], []),
        strict=True,
    ):
        stage.update(stop_when=rules, data_percentage=100, epoch_budget=1, survival_rate=1.0)
    for place, stage in enumerate(stages):
        stage["epoch_budget"] = (1, 2, 4, 4)[place]
    planted = [
        healthy("healthy"),
        Genome("explodes", LoRAConfig(r=4, alpha=4, learning_rate=1.0)),
        healthy("nan", rate=1e30),
        healthy("idle", rate=1e-9),
    ]
    trainer = HyperbandTrainer(config)
    trainer.train_population(planted)
    assert trainer.run_folder is not None
    report = json.loads((trainer.run_folder / "report.json").read_text())
    stopped = {entry["genome"]: (entry["stage"], entry["rule"]) for entry in report["stopped"]}
    assert stopped["nan"] == ("S0_sanity", "loss is not finite")
    stage, rule = stopped["explodes"]
    assert (stage, rule[:22]) == ("S0_sanity", "training loss exploded")
    assert stopped["idle"] == ("S1_shakeout", "auroc < 0.55")
    assert [member["genome"] for member in report["front"]] == ["healthy"]


@pytest.mark.slow
def test_a_healthy_genome_is_never_stopped_over_twenty_seeds() -> None:
    """The quickstart's model and data, the published default rules, beside one that learns
    nothing, so that no floor is waived."""
    from coralx.config import load_config

    stages = [
        TrainingStage("S0", 1.0, 20, 1.0),
        TrainingStage("S1", 1.0, 50, 1.0),
        TrainingStage("S2", 1.0, 60, 1.0),
    ]
    quickstart = load_config(ROOT / "configs" / "quickstart.yaml").model_dump(mode="json")
    quickstart["runtime"]["executor"] = "in-process"
    for seed in range(20):
        quickstart["experiment"]["seed"] = seed
        trainer = HyperbandTrainer(quickstart, stages=stages)
        lora = LoRAConfig(r=8, alpha=16, target_modules=MODULES, learning_rate=1e-3)
        idle = LoRAConfig(r=2, alpha=2, target_modules=MODULES, learning_rate=1e-8)
        trainer.train_population([Genome(f"healthy-{seed}", lora), Genome(f"idle-{seed}", idle)])
        assert trainer.run_folder is not None
        report = json.loads((trainer.run_folder / "report.json").read_text())
        stopped = [(entry["genome"], entry["rule"]) for entry in report["stopped"]]
        assert f"healthy-{seed}" not in dict(stopped), stopped
        assert report["not_judged"] == [], seed
        assert not any("too strict" in warning for warning in report["warnings"]), seed


def test_a_stage_of_few_steps_is_not_judged_and_says_so(config: dict[str, Any]) -> None:
    from rich.console import Console

    from coralx.report.live import PlainLines

    spoken = io.StringIO()
    config["hyperband_config"]["training_stages"][0]["stop_when"] = ["gradient_norm > 1e-9"]
    config["hyperband_config"]["training_stages"][2]["stop_when"] = ["gradient_norm > 1e-9"]
    view = PlainLines(Console(file=spoken, width=200))
    trainer = HyperbandTrainer(config, view=view)
    trainer.train_population([healthy("a"), healthy("b")])
    assert trainer.run_folder is not None
    report = json.loads((trainer.run_folder / "report.json").read_text())
    assert {(entry["stage"], entry["genome"]) for entry in report["not_judged"]} == {
        ("S0_sanity", "a"),
        ("S0_sanity", "b"),
    }
    said = spoken.getvalue()
    assert "warning: S0_sanity ends after 2 steps, fewer than the 8 needed to judge" in said
    assert "too few steps to be judged" not in said  # the line above has it
    assert report["stopped"] == []
    assert "warning: the rule `gradient_norm > 1e-09` is too strict for this stage" in said


def test_the_last_population_alone_is_reported(config: dict[str, Any]) -> None:
    trainer = HyperbandTrainer(config, stages=STAGES[:1])
    first = trainer.train_population([healthy("a")])
    second = trainer.train_population([healthy("b")])
    assert trainer.get_training_efficiency_report(second)["total_genomes"] == 1
    with pytest.raises(UsageError, match="not the results of the population"):
        trainer.get_training_efficiency_report(first)


def test_a_genome_may_be_called_baseline(config: dict[str, Any]) -> None:
    trainer = HyperbandTrainer(config, stages=STAGES[:1])
    (result,) = trainer.train_population([healthy("baseline")])
    assert result.genome_id == "baseline"


def test_modules_that_the_base_lacks_are_refused_before_there_is_a_run(
    config: dict[str, Any], place: Path
) -> None:
    from coralx.errors import ConfigError

    strange = Genome("a", LoRAConfig(target_modules=["q_proj"]))
    with pytest.raises(ConfigError, match=r"no linear module 'q_proj'.*query"):
        HyperbandTrainer(config).train_population([strange])
    assert not (place / "runs").exists()


def test_the_example_script_runs(
    config: dict[str, Any],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["train_population.py", "tiny.yaml"])
    runpy.run_path(str(ROOT / "examples" / "train_population.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "S2_finisher" in said
    assert "times cheaper than training all of them to the end" in said
