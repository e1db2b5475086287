"""What a metric of the user's own is given belongs together, row by row."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("datasets")

import torch

from coralx.config import load_config
from coralx.config.yaml_io import write_values
from coralx.data.splits import load_all
from coralx.metrics.compute import Figures
from coralx.metrics.user_metrics import Predictions
from coralx.training.evaluation import Evaluation
from coralx.training.task_data import Material
from tests.support.languages import Language

METRIC = "given = []\ndef rows(predictions):\n    given.append(predictions)\n    return 1\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A folder with a metric that keeps what it is given."""
    (tmp_path / "own.py").write_text(METRIC)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("coralx_user.own", None)


def evaluated(
    folder: Path, language: Language, limit: int | None, **sections: Any
) -> tuple[Figures, list[Predictions], Material]:
    """Figures, what the metric was given after it had been tried, and what was read."""
    objectives = [{"metric": "own:rows", "direction": "maximize"}]
    (folder / "c.yaml").write_text(write_values({"objectives": objectives, **sections}))
    config = load_config(folder / "c.yaml")
    examples = load_all(config.data, 1, config.model.task)
    base = SimpleNamespace(tokenizer=language.tokenizer, model=language.model, fused_loss=False)
    cpu = torch.device("cpu")
    material = Material(config, examples, base, cpu)  # type: ignore[arg-type]
    evaluation = Evaluation(config, language.model, material, nullcontext, cpu, nullcontext)
    given: list[Predictions] = sys.modules["coralx_user.own"].given
    tried = len(given)
    assert tried == len(material.parts)
    figures = evaluation.validated(limit, lambda: None)
    assert figures is not None
    return figures, given[tried:], material


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("limit", [None, 4])
def test_texts_are_those_of_the_rows_that_have_room(
    own: Path, languages: dict[str, Language], limit: int | None
) -> None:
    pairs = [
        {"prompt": "good " * (n % 12 + 1), "completion": "bad " * (n % 3 + 1)} for n in range(60)
    ]
    figures, (given,), material = evaluated(
        own,
        languages["words"],
        limit,
        model={"task": "sft", "max_length": 12},
        data={"train": lines(own / "p.jsonl", pairs), "validation_fraction": 0.5},
    )
    assert material.parts[0].splits["validation"].rows.left_out > 0
    assert figures["own:rows"] == 1
    assert len(given.texts) == len(given.groups) == len(given.losses)
    assert limit is None or len(given.texts) == limit
    for text, (_, tokens) in zip(given.texts, given.losses, strict=True):
        asked, answer = text.split("\n")
        room = 12 - 1 - len(asked.split())
        assert room > 0
        assert tokens == min(len(answer.split()) + 1, room)  # and the end of the text
    assert given.labels.size == given.probabilities.size == 0
    assert given.classes == ()


@pytest.mark.parametrize("limit", [None, 5])
def test_rows_of_each_task_stand_with_their_label_and_group(
    own: Path, languages: dict[str, Language], limit: int | None
) -> None:
    def table(name: str, labels: list[str]) -> dict[str, Any]:
        rows = [
            {"text": f"film {'good ' * n}", "label": labels[n % len(labels)], "party": f"g{n % 3}"}
            for n in range(30)
        ]
        return {"train": lines(own / f"{name}.jsonl", rows), "labels": labels}

    tasks = {"a": table("a", ["bad", "fine"]), "b": table("b", ["no", "sad", "slow"])}
    tasks["b"]["labels"] = {"bad": ["no"], "good": ["sad"], "slow": ["slow"]}
    shared = {"group": "party", "validation_fraction": 0.4, "test_fraction": 0.2}
    figures, given, material = evaluated(
        own,
        languages["words"],
        limit,
        model={"task": "label-tokens", "max_length": 60},
        data={**shared, "attacks": ["swap"], "tasks": tasks},
    )
    assert [found.task for found in given] == ["a", "b"]
    assert figures["own:rows"] == figures["own:rows@a"] == figures["own:rows@b"] == 1
    for found, part in zip(given, material.parts, strict=True):
        classes = len(found.classes)
        assert found.classes == part.labels
        assert found.split == "validation"
        assert len(found.texts) == (12 if limit is None else limit)
        assert found.probabilities.shape == (len(found.texts), classes)
        for text, label, group in zip(found.texts, found.labels, found.groups, strict=True):
            number = text.count("good")
            assert label == number % classes
            assert group == f"g{number % 3}"
        attacked = [e for e in part.splits["validation"].examples if e.label > 0]
        assert len(found.withstood) == len(attacked[:limit])
        assert set(found.withstood.tolist()) <= {0.0, 1.0}
