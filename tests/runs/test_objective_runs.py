"""Whole searches over the objectives, with real gradients on tiny models: every figure is computed
once more from what the run has kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

pytest.importorskip("torch")

sys.path.insert(0, str(ROOT / "benchmarks" / "objectives"))

from check import disagreements

from coralx.backends.protocol import create
from coralx.config import load_config
from coralx.errors import ConfigError
from coralx.metrics.row_scores import read_scores
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job
from tests.support.objective_runs import objectives, prompts, quick, search


@pytest.fixture(autouse=True)
def folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Memory is measured twice, not seven times."""
    monkeypatch.setattr("coralx.training.cost_metrics.MEMORY_REPEATS", 2)
    return here


def rows_of(path: Path, count: int) -> str:
    """Clean rows and attacks of the tiny vocabulary."""
    texts = [f"the {a} is {b}" for a in ("film", "road", "team") for b in ("slow", "fine", "sad")]
    path.write_text("text\n" + "\n".join((texts * count)[:count]) + "\n")
    return str(path)


@pytest.fixture
def two_tasks(tiny_config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Reviews, and the same texts by what they are about: three classes."""
    reviews = tiny_config["data"]
    rows = []
    for number in range(444):
        about = ("film", "road", "team")[number % 3]
        mood = ("good", "bad", "slow", "fine")[number % 4]
        rows.append({"words": f"the {about} is {mood}", "topic": about, "where": f"w{number % 2}"})
    (folder / "topics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tiny_config["data"] = {
        "validation_fraction": 0.35,
        "test_fraction": 0.35,
        "tasks": {
            "mood": {**reviews, "attacks": ["swap", "prefix"], "validation_fraction": 0.3},
            "topic": {
                "train": "topics.jsonl",
                "text": "words",
                "label": "topic",
                "labels": ["film", "road", "team"],
                "group": "where",
                "clean_holdout": rows_of(folder / "clean.csv", 11),
            },
        },
    }
    tiny_config["training"]["batch_size"] = 6
    return tiny_config


MEASURED = ("memory", "latency_ms", "memory_spread", "latency_ms_spread")


def test_a_search_over_two_tasks_and_every_figure_computed_anew(two_tasks: dict[str, Any]) -> None:
    listed = ("task_skill", "safety", "false_positive_cost", "calibration", "robustness")
    chosen = objectives(*listed, "auroc@topic", "memory", "latency_ms")
    outcome = search(quick(two_tasks, objectives=chosen))
    found = disagreements(outcome.layout.root)
    assert found.wrong == []
    assert found.checked >= 60
    report = outcome.report
    assert report["rows"]["attacks"] > 0
    described = outcome.layout.root / "predictions" / "rows.jsonl"
    rows = [json.loads(line) for line in described.read_text().splitlines()]
    (path, *_) = outcome.layout.root.glob("predictions/*/S1.safetensors")
    for task, scores in read_scores(path).items():
        own = [row for row in rows if (row["task"], row["split"]) == (task, "validation")]
        assert [row["label"] for row in own if row["kind"] == "row"] == scores.labels.tolist()
        for kind, kept in (("attack", scores.withstood), ("clean", scores.clean)):
            assert sum(row["kind"] == kind for row in own) == (0 if kept is None else len(kept))
    assert report["rows"]["clean hold-out"] == 9  # each text once
    for member in report["front"]:
        test = {name: figure["value"] for name, figure in member["test"].items()}
        mean = (test["auroc@mood"] + test["auroc@topic"]) / 2
        assert test["task_skill"] == pytest.approx(mean)
        assert test["robustness"] == test["robustness@topic"]
        assert test["safety"] == test["safety@mood"]
        for name in ("task_skill", "safety", "false_positive_cost", "robustness"):
            interval = member["test"][name]
            assert interval["low"] <= interval["value"] <= interval["high"]
        assert test["memory"] >= 0
        assert test["latency_ms"] > 0
        assert member["validation"]["threshold_at_recall_90@topic"] is not None
    assert any("memory, latency_ms: measured" in warning for warning in report["warnings"])


def job(name: str, predictions: Path | None = None) -> Job:
    genes = Genes(4, 2.0, 0.1, 1e-2, ("query", "value"), 6)
    kept = str(predictions) if predictions else None
    horizon = Horizon(20, 1)
    return Job(Genome(name, 0, genes), "S0", 0, 5, horizon, 1.0, None, predictions=kept)


def test_figures_depend_neither_on_who_was_trained_before_nor_on_the_process(
    two_tasks: dict[str, Any],
) -> None:
    names = objectives("task_skill", "safety", "false_positive_cost", "robustness", "memory")
    Path("own.yaml").write_text(yaml.safe_dump(quick(two_tasks, objectives=names)))
    config = load_config(Path("own.yaml"))
    alone, after = create("peft"), create("peft")
    for backend in (alone, after):
        backend.prepare(config, "fp32", 1, lambda text: None)  # noqa: ARG005
    for other in ("a", "b"):
        after.train(job(other), lambda progress: None)  # noqa: ARG005
    first, second = (
        dict(backend.train(job("c", Path(f"{place}.safetensors")), lambda progress: None).metrics)  # noqa: ARG005
        for place, backend in enumerate((alone, after))
    )
    measured = [found.pop(name) for found in (first, second) for name in MEASURED if name in found]
    assert len(measured) == 4
    assert first == second
    assert Path("0.safetensors").read_bytes() == Path("1.safetensors").read_bytes()


def test_the_label_words_of_two_tasks(causal_config: Callable[[str], dict[str, Any]]) -> None:
    config = causal_config("label-tokens")
    own = config["data"]
    config["data"] = {
        "tasks": {
            "first": own,
            "second": {**own, "prompt": "Review : {text}\nAnswer :", "labels": {
                "bad": ["negative"], "good": ["positive"]}},
        }
    }  # fmt: skip
    outcome = search(quick(config, objectives=objectives("task_skill", "auroc@second")))
    assert disagreements(outcome.layout.root).wrong == []
    assert outcome.report["front"]


@pytest.mark.parametrize("task", ["label-tokens", "sft"])
def test_a_chat_model_s_answers_are_judged_and_kept(
    task: str, causal_config: Callable[[str], dict[str, Any]], folder: Path
) -> None:
    (folder / "myjudge.py").write_text(
        "def even(prompt, answer):\n    return len(prompt.split()) % 2 == 0\n"
    )
    config = causal_config(task)
    config["data"]["attacks"] = {
        "file": prompts(folder),
        "text": "goal",
        "judge": "myjudge:even",
        "max_new_tokens": 4,
    }
    skill = "eval_loss" if task == "sft" else "task_skill"
    outcome = search(quick(config, objectives=objectives(skill, "safety")))
    assert disagreements(outcome.layout.root).wrong == []
    member = outcome.report["front"][0]
    path = outcome.layout.scores(member["genome"]).with_suffix(".answers.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 4  # of nine prompts, five went with validation
    assert {row["prompt"] for row in rows} < {
        json.loads(line)["goal"] for line in (folder / "harmful.jsonl").read_text().splitlines()
    }
    verdicts = [len(row["prompt"].split()) % 2 == 0 for row in rows]
    assert [row["withstood"] for row in rows] == verdicts
    assert member["test"]["safety"]["value"] == sum(verdicts) / 4


def test_answers_are_the_most_probable_tokens_whoever_is_asked_beside(languages: Any) -> None:
    import contextlib

    import torch

    from coralx.data.examples import Example
    from coralx.tasks.generation import Answers
    from coralx.training.inference import generated_answers

    for kind in ("words", "bytes"):
        language = languages[kind]
        answers = Answers(language.tokenizer, 40, 5, torch.device("cpu"))
        asked = [Example(text) for text in ("good", "the film is bad", "a road a road a road")]
        data = answers.encode(asked)
        together = generated_answers(language.model, answers, data, contextlib.nullcontext)
        for place, ids in enumerate(data.ids):
            grown = list(ids)
            for _ in range(5):
                with torch.no_grad():
                    following = language.model(torch.tensor([grown])).logits[0, -1].argmax().item()
                if following == language.tokenizer.eos_token_id:
                    break
                grown.append(following)
            plain = language.tokenizer.decode(grown[len(ids) :], skip_special_tokens=True)
            assert together[place] == plain.strip()


def test_a_prompt_that_is_too_long_loses_the_end_of_its_text(languages: Any) -> None:
    import torch

    from coralx.data.examples import Example
    from coralx.tasks.generation import Answers

    language = languages["words"]
    answers = Answers(language.tokenizer, 16, 5, torch.device("cpu"))
    data = answers.encode([Example("the film is bad"), Example("good " * 40)])
    assert data.cut == 1
    assert len(data.ids[1]) <= 16
    whole = answers.encode([Example("good")]).ids[0]
    assert data.ids[1][-3:] == whole[-3:]  # what follows the text is all there
    with pytest.raises(ConfigError, match="chat template alone takes"):
        Answers(language.tokenizer, 4, 5, torch.device("cpu")).encode([Example("good " * 9)])


def test_attacks_that_are_cut_are_counted(
    causal_config: Callable[[str], dict[str, Any]], folder: Path
) -> None:
    config = causal_config("sft")
    config["model"]["max_length"] = 20
    config["data"]["attacks"] = {"file": prompts(folder, 30), "text": "goal", "max_new_tokens": 3}
    Path("own.yaml").write_text(yaml.safe_dump(quick(config)))
    facts = create("peft").prepare(load_config(Path("own.yaml")), "fp32", 1, lambda text: None)  # noqa: ARG005
    assert any(
        "of 30 attacks" in warning and "cut to model.max_length (20 tokens)" in warning
        for warning in facts.warnings
    )
