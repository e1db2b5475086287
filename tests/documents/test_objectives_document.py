"""docs/objectives.md and the prompt of docs/data.md: examples are run as they stand, and the tables
are the catalogue's."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coralx.api import runs as api
from coralx.config import load_config, parse_config
from coralx.config.metric_catalogue import CATALOGUE
from coralx.config.mode import resolve_mode
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
DOCUMENT = (DOCS / "objectives.md").read_text(encoding="utf-8")
PROMPTS = (DOCS / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", DOCUMENT + PROMPTS, re.DOTALL | re.MULTILINE)
HARMLESS = ("good", "fine", "calm", "happy")
QUICK = {
    "evolution": {"population_size": 2, "generations": 1},
    "hyperband_config": {
        "training_stages": [
            {"name": "S0", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1}
        ]
    },
    "runtime": {"executor": "in-process"},
}


def block(kind: str, holding: str) -> str:
    """The one block of that kind that holds a text."""
    (found,) = (text for language, text in BLOCKS if language == kind and holding in text)
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("mymetrics", "myjudge"):
        sys.modules.pop(f"coralx_user.{name}", None)
    return tmp_path


def search(config: dict[str, Any], **sections: Any) -> api.Outcome:
    path = Path("own.yaml")
    path.write_text(yaml.safe_dump({**config, **QUICK, **sections}))
    return api.evolve(resolve_mode(load_config(path), None, None))


def test_the_metric_of_your_own(tiny_config: dict[str, Any], reviews: Path, folder: Path) -> None:
    (folder / "mymetrics.py").write_text(block("python", "# mymetrics.py"))
    rows = reviews.read_text().splitlines()
    asking = [row + " ?" if number % 3 == 0 else row for number, row in enumerate(rows)]
    (folder / "reviews.tsv").write_text("\n".join(asking))
    tiny_config["data"]["train"] = "reviews.tsv"
    outcome = search(tiny_config, **yaml.safe_load(block("yaml", "mymetrics:")))
    figures = [m["test"]["mymetrics:recall_of_questions"]["value"] for m in outcome.report["front"]]
    assert figures
    assert all(0 <= figure <= 1 for figure in figures)


def test_the_judge_of_your_own(
    causal_config: Callable[[str], dict[str, Any]], folder: Path
) -> None:
    (folder / "myjudge.py").write_text(block("python", "# myjudge.py"))
    (folder / "harmful.csv").write_text("goal\nthe film is bad\nthe team is slow\nhate\nsad road\n")
    config = causal_config("sft")
    config["data"] |= yaml.safe_load(block("yaml", "myjudge:"))["data"]
    objectives = [{"metric": "eval_loss"}, {"metric": "safety"}]
    outcome = search(config, objectives=objectives)
    (answers, *_) = outcome.layout.test_scores.glob("*.answers.jsonl")
    assert len(answers.read_text().splitlines()) == 2
    assert outcome.report["front"][0]["test"]["safety"]["value"] in (0.0, 0.5, 1.0)


def test_the_prompt(causal_config: Callable[[str], dict[str, Any]], folder: Path) -> None:
    written = yaml.safe_load(block("yaml", "# prompt.yaml"))
    assert parse_config(written, "prompt.yaml").data.prompt.startswith("Review: {text}\n")
    rows = ["text,stars"]
    for number in range(160):
        mood = HARMLESS[number % 4] if number % 2 else ("bad", "poor", "sad", "slow")[number % 4]
        rows.append(f"the film is {mood},{(4, 5)[number % 4 // 2] if number % 2 else 1}")
    (folder / "data").mkdir()
    (folder / "data" / "reviews.csv").write_text("\n".join(rows) + "\n")
    config = causal_config("label-tokens")
    config["model"] = {**written["model"], "base": config["model"]["base"], "max_length": 48}
    config["data"] = {**written["data"], "validation_fraction": 0.2, "test_fraction": 0.2}
    outcome = search(config)
    assert outcome.report["front"][0]["test"]["auroc"]["value"] is not None


def test_every_other_example_is_a_config() -> None:
    for language, text in BLOCKS:
        if language != "yaml":
            continue
        written = yaml.safe_load(text)
        if "objectives" in written:
            written.setdefault("data", {"attacks": ["swap"]})
        assert parse_config(written, "example")


def test_every_metric_is_described_and_none_beside() -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", DOCUMENT, re.MULTILINE)
    described = [block for block in blocks if "| better |" in block.splitlines()[0]]
    tables = [line for block in described for line in block.splitlines()]
    named = set()
    for line in tables:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        first = cells[1] if re.fullmatch(r"P\d", cells[0]) else cells[0]
        named |= set(re.findall(r"`([a-z_0-9]+)`", first))
    assert named == set(CATALOGUE)
    for name, metric in CATALOGUE.items():
        (line,) = (
            line
            for line in tables
            if f"`{name}`" in "|".join(line.split("|")[1:3]) and "better" not in line
        )
        assert ("| more |" if metric.direction == "maximize" else "| less |") in line
