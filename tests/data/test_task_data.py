"""Data of several tasks: what each has of its own, what it takes over, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from coralx.config import Config, load_config
from coralx.config.data import Data
from coralx.config.mode import resolve_mode
from coralx.data.splits import load_all
from coralx.errors import ConfigError
from tests.support.tables import lines, problems_of


def two_tasks(texts: str, tmp_path: Path, **shared: Any) -> dict[str, Any]:
    rows = [{"text": f"message {n}", "kind": ["no", "yes", "1"][n % 3]} for n in range(30)]
    file = lines(tmp_path / "spam.jsonl", rows)
    own = {"train": file, "label": "kind", "labels": ["no", "yes", "1"], "limit": 6}
    return {
        **shared,
        "tasks": {"tox": {"train": texts, "labels": ["ok", "bad"]}, "spam-2": own},
    }


def test_each_task_has_its_own_files_and_labels(texts: str, tmp_path: Path) -> None:
    data = Data(**two_tasks(texts, tmp_path))
    found = load_all(data, 1, "sequence-classification")
    assert [(name, read_.labels) for name, read_ in found.items()] == [
        ("tox", ("ok", "bad")),
        ("spam-2", ("no", "yes", "1")),
    ]
    assert len(found["spam-2"].train) == 6
    assert data.known_rows == 0  # tox has no limit


def test_what_stands_beside_tasks_holds_for_those_that_say_nothing_else(
    texts: str, attacks: str, tmp_path: Path
) -> None:
    written = two_tasks(texts, tmp_path, limit=8, test_fraction=0.3, attacks=attacks)
    written["tasks"]["tox"] |= {"attacks": ["swap"], "test_fraction": 0.2}
    data = Data(**written)
    assert data.tasks is not None
    tox, spam = data.tasks["tox"], data.tasks["spam-2"]
    assert (tox.limit, spam.limit) == (8, 6)
    assert (tox.test_fraction, spam.test_fraction) == (0.2, 0.3)
    assert tox.attacks is not None
    assert tox.attacks.perturbations == ("swap",)
    assert spam.attacks is not None
    assert spam.attacks.file == attacks
    assert data.known_rows == 14


def test_what_is_wrong_with_one_task_is_told_by_its_whole_path(texts: str, tmp_path: Path) -> None:
    def first_problem(**changes: Any) -> str:
        written = two_tasks(texts, tmp_path)
        written["tasks"]["spam-2"] |= changes
        with pytest.raises(ConfigError) as caught:
            load_all(Data(**written), 1, "sequence-classification")
        return caught.value.problems[0]

    missing = str(tmp_path / "none.csv")
    assert first_problem(label="knid").startswith("data.tasks.spam-2.label: no column 'knid'")
    assert first_problem(text="txet").startswith("data.tasks.spam-2.text: no column 'txet'")
    assert first_problem(group="x").startswith("data.tasks.spam-2.group: no column 'x'")
    assert first_problem(train=missing).startswith("data.tasks.spam-2.train: ")
    assert first_problem(attacks=missing).startswith("data.tasks.spam-2.attacks.file: ")
    assert first_problem(clean_holdout=missing).startswith("data.tasks.spam-2.clean_holdout.file: ")
    unknown = first_problem(labels=["no", "yes"])
    assert unknown.startswith("data.tasks.spam-2.train: ")
    assert "outside data.tasks.spam-2.labels: '1' (10x)" in unknown
    fractions = first_problem(validation_fraction=0.6, test_fraction=0.5)
    assert fractions.startswith("data.tasks.spam-2: ")
    absent = first_problem(labels=["no", "yes", "1", "2"])
    assert "no row of class '2'" in absent


def test_warnings_name_their_task(texts: str, tmp_path: Path) -> None:
    gaps = [{"text": text, "label": "ok"} for text in ("", "x")] * 10
    gaps += [{"text": f"{n}", "label": "bad"} for n in range(20)]
    written = two_tasks(texts, tmp_path)
    written["tasks"]["tox"]["train"] = lines(tmp_path / "gaps.jsonl", gaps)
    found = load_all(Data(**written), 1, "sequence-classification")["tox"].warnings
    assert len(found) >= 2  # rows without a text, and a text in several splits
    assert all("tox" in warning for warning in found)


LABELS = "[no, yes, 1]"


def labels_of(config: Config, task: str) -> Any:
    assert config.data.tasks is not None
    return config.data.tasks[task].labels


def test_labels_of_a_task_stay_the_text_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"data: {{tasks: {{a: {{labels: {LABELS}}}, b: {{train: x}}}}}}")
    assert labels_of(load_config(path), "a") == ("no", "yes", "1")
    for assignment, task in (
        (f"data.tasks.b.labels={LABELS}", "b"),
        (f"data.tasks.b={{labels: {LABELS}}}", "b"),
        (f"data.tasks={{c: {{labels: {LABELS}}}}}", "c"),
        (f"data={{tasks: {{c: {{labels: {LABELS}}}}}}}", "c"),
    ):
        assert labels_of(load_config(path, [assignment]), task) == ("no", "yes", "1"), assignment
    grouped = load_config(path, ["data.tasks.a.labels={no: [0, false], yes: [1]}"])
    assert labels_of(grouped, "a") == {"no": ("0", "false"), "yes": ("1",)}
    shared = load_config(path, [f"data.labels={LABELS}"])
    assert labels_of(shared, "b") == ("no", "yes", "1")


def test_without_a_header_each_task_may_name_its_own_columns() -> None:
    tasks: dict[str, Any] = {"a": {"text": 0, "label": 1}, "b": {"text": 2, "label": 0}}
    data = Data.model_validate({"header": False, "tasks": tasks})
    assert [source.text for source in data.sources.values()] == [0, 2]
    tasks["b"] = {"text": "named", "label": "too"}
    problems = problems_of({"header": False, "tasks": tasks})
    assert [problem.partition(":")[0] for problem in problems] == ["data.tasks.b"]


@pytest.mark.parametrize(
    ("data", "path", "near"),
    [
        ({"tasks": {"a": {"lable": "x"}}}, "data.tasks.a.lable", "'label'"),
        ({"tasks": {"choices": {"lable": "x"}}}, "data.tasks.choices.lable", "'label'"),
        ({"tasks": {"train": {"trian": "x"}}}, "data.tasks.train.trian", "'train'"),
        (
            {"tasks": {"a": {"attacks": {"file": "x", "limt": 3}}}},
            "data.tasks.a.attacks.limt",
            "'limit'",
        ),
        (
            {"tasks": {"a": {"clean_holdout": {"file": "x", "txt": "y"}}}},
            "data.tasks.a.clean_holdout.txt",
            "'text'",
        ),
        ({"attacks": {"file": "x", "jugde": "refusal"}}, "data.attacks.jugde", "'judge'"),
        ({"clean_holdout": {"fiel": "x"}}, "data.clean_holdout.fiel", "'file'"),
        ({"taks": {"a": {}}}, "data.taks", "'tasks'"),
    ],
)
def test_a_misspelt_key_is_named_with_its_whole_path(
    data: dict[str, Any], path: str, near: str
) -> None:
    problems = problems_of(data)
    (problem,) = [problem for problem in problems if problem.startswith(f"{path}: unknown key")]
    assert near in problem


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"tasks": {}}, "data.tasks"),
        ({"tasks": ["a"]}, "data.tasks"),
        ({"tasks": {"a": 3}}, "data.tasks.a"),
        ({"tasks": {"a": {"validation_fraction": 2}}}, "data.tasks.a.validation_fraction"),
        ({"tasks": {"a": {"attacks": ["swop"]}}}, "data.tasks.a.attacks.perturbations.0"),
        ({"tasks": {"a": {"labels": ["x", "x"]}}}, "data.tasks.a.labels"),
        ({"tasks": {"a": {"tasks": {"b": {}}}}}, "data.tasks.a.tasks"),
        ({"tasks": {"a": {"steps_per_epoch": 3}}}, "data.tasks.a.steps_per_epoch"),
    ],
)
def test_a_task_that_cannot_be_is_refused_at_its_place(data: dict[str, Any], path: str) -> None:
    problems = problems_of(data)
    assert [problem.partition(": ")[0] for problem in problems] == [path], problems


def test_files_of_tasks_are_looked_for_beside_the_config_and_named_where_they_are_missing(
    texts: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        """
        model: {base: x/y}
        data:
          train: texts.jsonl
          tasks:
            a: {attacks: texts.jsonl, clean_holdout: texts.jsonl}
            b: {attacks: {file: none.csv}, clean_holdout: nowhere.csv, test: no.csv}
        """
    )
    config = load_config(path)
    assert config.data.tasks is not None
    assert config.data.tasks["a"].files == {
        "train": texts, "attacks.file": texts, "clean_holdout.file": texts,
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        resolve_mode(config, None, None)
    assert caught.value.problems == (
        "data.tasks.b.test: no such file: no.csv",
        "data.tasks.b.attacks.file: no such file: none.csv",
        "data.tasks.b.clean_holdout.file: no such file: nowhere.csv",
    )


@pytest.mark.parametrize("name", ["a/b", "", "a b", "-a", "a@b", "a" * 101])
def test_names_of_tasks_are_such_as_files_and_metrics_can_have(name: str) -> None:
    (problem,) = problems_of({"tasks": {name: {"train": "x"}}})
    assert problem.startswith("data.tasks")
    assert "expected a name of letters" in problem


def test_a_shared_key_that_is_wrong_is_told_once() -> None:
    tasks = {name: {"train": name} for name in "abc"}
    problems = problems_of({"validation_fraction": 2, "tasks": tasks})
    assert [problem.partition(": ")[0] for problem in problems] == ["data.validation_fraction"]
