"""Classes that the data holds: counted, told, and refused where a split lacks one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.factories import make_config, make_facts

pytest.importorskip("datasets")

from coralx.config import Config
from coralx.config.data import Data
from coralx.data.classes import classes_of, lookalikes
from coralx.data.splits import Examples, load_examples
from coralx.errors import ConfigError
from coralx.records.events import RunStarted
from coralx.records.run_facts import Classes
from coralx.report.classes import class_lines
from coralx.report.classes import classes_of as as_reported
from coralx.storage.adapter_card import about_adapters
from coralx.text import LONGEST_NAME, MOST_LISTED, counted


def table(path: Path, **rows: int) -> str:
    """A file with so many rows of each label."""
    listed = [
        {"text": f"{label} number {n}", "label": label.replace("_", " "), "place": f"p{n % 2}"}
        for label, count in rows.items()
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    return str(path)


def read(train: str, name: str = "", **settings: Any) -> Examples:
    return load_examples(Data(train=train, **settings), 1, name=name)


def test_every_class_is_counted_in_every_split_in_the_order_of_the_logits(tmp_path: Path) -> None:
    train = table(tmp_path / "t.jsonl", spam=40, ham=80)
    found = read(train, labels={"bad": ("spam",), "good": ("ham",)}, limit=30)
    classes = classes_of("mail", found.labels, found.splits)
    assert classes.labels == ("bad", "good")
    assert classes.rows == {"train": (10, 20), "validation": (4, 8), "test": (4, 8)}
    sorted_ones = read(train)
    assert sorted_ones.labels == ("ham", "spam")


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["ham", "HAM", "spam"], ["'ham' (1 row), 'HAM' (2 rows)"]),
        (["half true", "half  true", "false"], ["'half true' (1 row), 'half  true' (2 rows)"]),
        (["caf\u00e9", "cafe\u0301"], ["'caf\u00e9' (1 row), 'cafe\u0301' (2 rows)"]),
        (["yes", "ye\u200bs", "no"], ["'yes' (1 row), 'ye\\u200bs' (2 rows)"]),
        (["1", "1.0", "2", "10"], ["'1' (1 row), '1.0' (2 rows)"]),
        (["A", "a", "B", "b"], ["'A' (1 row), 'a' (2 rows)", "'B' (3 rows), 'b' (4 rows)"]),
        (["C", "C++", "+1", "-1", "10", "100", "v1", "v1.0"], []),
    ],
)
def test_names_that_differ_only_in_writing_are_told(names: list[str], alike: list[str]) -> None:
    rows = {name: place for place, name in enumerate(names, 1)}
    found = lookalikes("data.label", "classes", rows, "if they are one, say so")
    assert len(found) == len(alike)
    for warning, told in zip(found, alike, strict=True):
        assert warning.startswith(f"data.label: the classes {told} differ only in how")


def test_classes_and_groups_that_look_alike_are_warned_about(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"t{n}",
            "label": ["ham", "HAM", "spam"][n % 3],
            "place": ["US", "us", None][n % 3],
        }
        for n in range(60)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read(str(path), group="place", name="mail").warnings
    classes, without, groups = [w for w in found if w.startswith("data.tasks.mail.")]
    assert "'ham' (20 rows), 'HAM' (20 rows)" in classes
    assert "data.tasks.mail.labels" in classes
    assert without.startswith("data.tasks.mail.group: 20 rows of 60 have no group")
    assert "'US' (20 rows), 'us' (20 rows)" in groups


@pytest.mark.parametrize(
    ("settings", "problem", "ways_out"),
    [
        (
            {"limit": 2},
            "data.limit: 2 leaves no row of class 'rare' (4 rows) in the train split; "
            "data.train has 104 rows in all",
            ["raise data.limit", "merge it with another in data.labels (a mapping"],
        ),
        (
            {"validation_fraction": 0.02},
            "data.validation_fraction: 0.02 leaves no row of class 'rare' (4 rows) in the "
            "validation split; data.train has 104 rows in all",
            ["raise data.validation_fraction", "files of their own"],
        ),
        (
            {"name": "mail", "test_fraction": 0.02, "validation_fraction": 0.3},
            "data.tasks.mail.test_fraction: 0.02 leaves no row of class 'rare' (4 rows) in the "
            "test split; data.tasks.mail.train has 104 rows in all",
            ["raise data.tasks.mail.test_fraction", "data.tasks.mail.labels"],
        ),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.49},
            "data.validation_fraction and data.test_fraction: 0.5 and 0.49 leave no row of class "
            "'rare' (4 rows), 'spam' (40 rows) in the train split; data.train has 104 rows in all",
            ["lower data.validation_fraction or data.test_fraction"],
        ),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.49, "limit": 1, "name": "x"},
            "data.tasks.x.validation_fraction and data.tasks.x.test_fraction: 0.5 and 0.49 leave "
            "no row of class 'rare' (4 rows), 'spam' (40 rows) in the train split; "
            "data.tasks.x.train has 104 rows in all",
            ["lower data.tasks.x.validation_fraction or data.tasks.x.test_fraction"],
        ),
        (
            {"labels": ("ham", "spam", "rare", "eggs")},
            "data.train: no row of class 'eggs' among its 104 rows",
            ["give more rows, or correct data.label and data.labels"],
        ),
    ],
)
def test_a_split_without_a_class_names_what_left_it_none(
    tmp_path: Path, settings: dict[str, Any], problem: str, ways_out: list[str]
) -> None:
    train = table(tmp_path / "t.jsonl", ham=60, spam=40, rare=4)
    with pytest.raises(ConfigError) as caught:
        read(train, **{"validation_fraction": 0.25, "test_fraction": 0.25, **settings})
    assert caught.value.problems == (problem,)
    for way_out in ways_out:
        assert way_out in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, (2, 1, 1)),
        ({"validation_fraction": 0.05, "test_fraction": 0.03}, (2, 1, 1)),
        ({"validation_fraction": 0.5, "test_fraction": 0.45}, (1, 2, 1)),
        ({"limit": 3}, (1, 1, 1)),
    ],
)
def test_every_split_has_a_row_of_a_rare_class_where_it_has_room(
    tmp_path: Path, settings: dict[str, Any], rows: tuple[int, int, int]
) -> None:
    train = table(tmp_path / "t.jsonl", ham=60, spam=40, rare=4)
    found = read(train, **{"validation_fraction": 0.25, "test_fraction": 0.25, **settings})
    rare = found.labels.index("rare")
    splits = (found.train, found.validation, found.test)
    assert tuple(sum(row.label == rare for row in split) for split in splits) == rows


@pytest.mark.parametrize("limit", [None, 100])
def test_every_beginning_of_every_split_has_each_class_s_share_within_one_row(
    tmp_path: Path, limit: int | None
) -> None:
    sizes = {f"class{n}": 5 + 11 * n for n in range(12)}
    found = read(table(tmp_path / "t.jsonl", **sizes), test_fraction=0.17, limit=limit)
    for rows in (found.train, found.validation, found.test):
        labels = [row.label for row in rows]
        for label, count in Counter(labels).items():
            seen = 0
            for place, other in enumerate(labels, 1):
                seen += other == label
                assert abs(seen - Fraction(place * count, len(labels))) < 1
        for name, label in zip(found.labels, range(12), strict=True):
            share = len(rows) * sizes[name] / sum(sizes.values())
            assert abs(labels.count(label) - share) < 1.5


def test_where_no_fraction_helps_none_is_to_be_raised(tmp_path: Path) -> None:
    """Three splits need three rows."""
    train = table(tmp_path / "t.jsonl", ham=60, rare=2)
    with pytest.raises(ConfigError, match=r"'rare' \(2 rows\) in the .*62 rows in all") as caught:
        read(train)
    assert "raise" not in caught.value.hint
    assert "lower" not in caught.value.hint
    assert "give more rows of it" in caught.value.hint


def test_a_file_of_its_own_that_lacks_a_class_is_named(tmp_path: Path) -> None:
    train = table(tmp_path / "t.jsonl", ham=20, spam=20)
    held = table(tmp_path / "v.jsonl", ham=9)
    with pytest.raises(ConfigError, match=r"data\.validation: no row of class 'spam' among its 9"):
        read(train, validation=held)
    with pytest.raises(ConfigError) as caught:
        read(held, validation=train, labels=("ham", "spam"))
    assert caught.value.problems == ("data.train: no row of class 'spam' among its 9 rows",)


def test_a_label_that_the_training_rows_lack_is_not_called_outside_a_key_that_is_unset(
    tmp_path: Path,
) -> None:
    train = table(tmp_path / "t.jsonl", ham=20, spam=20)
    other = table(tmp_path / "v.jsonl", ham=9, eggs=1)
    with pytest.raises(ConfigError) as caught:
        read(train, validation=other)
    (problem,) = caught.value.problems
    assert problem.endswith(
        "1 of 10 rows has a label outside those that data.train holds: 'eggs' (1x)"
    )


@pytest.mark.parametrize("key", ["train", "attacks", "clean_holdout"])
def test_a_refused_label_does_not_come_with_all_that_are_known(tmp_path: Path, key: str) -> None:
    known = [f"label{n}" + "x" * 200 for n in range(99)]
    train = table(tmp_path / "t.jsonl", **dict.fromkeys(known, 20))
    odd = table(tmp_path / "odd.jsonl", **{f"odd{n}": 3 for n in range(50)})
    given: dict[str, Any] = {"train": train, "labels": tuple(known), key: odd}
    with pytest.raises(ConfigError) as caught:
        read(**given)
    assert "'odd0'" in caught.value.message
    assert "and 91 more" in caught.value.hint
    assert len(caught.value.message + caught.value.hint) < 1500


# -- what is told and kept -------------------------------------------------------------------------


def started(
    *classes: Classes, base: str = "builtin:minilm", **data: Any
) -> tuple[Config, RunStarted]:
    config = make_config(model={"base": base}, data={"train": "t.csv", **data})
    facts = replace(make_facts(), classes=classes)
    return config, RunStarted(1, "r", "hyperband", 1, facts, None, {}, {}, 0.0)  # type: ignore[arg-type]


def mail(*labels: str, task: str = "") -> Classes:
    counts = tuple(range(1001, 1001 + len(labels)))
    return Classes(task, labels, {"test": counts, "train": counts, "validation": counts})


def test_the_lines_say_order_sign_and_rows_by_split() -> None:
    config, event = started(mail("ham", "spam"), labels=["ham", "spam"])
    assert class_lines(config.model.task, as_reported(config, event.facts)) == [
        "classes in the order of the logits (rows of train/validation/test):",
        "  'ham' (negative) 1,001/1,001/1,001, 'spam' (positive) 1,002/1,002/1,002",
    ]
    config, event = started(mail("a", "b", "c"))
    (_, line, note) = class_lines("label-tokens", as_reported(config, event.facts))
    assert line.startswith("  'a' (negative) 1,001/")
    assert "positive" not in line
    assert note == "  taken from the data and sorted; to set the order: data.labels"
    assert class_lines("sft", []) == []


def test_a_hundred_classes_with_hostile_names_stay_readable() -> None:
    names = [f"{n:02}\x1b[2J\n" + "y" * 500 for n in range(100)]
    config, event = started(mail(*names))
    (_, line, _) = class_lines(config.model.task, as_reported(config, event.facts))
    assert "\x1b" not in line
    assert "\n" not in line
    assert line.endswith("and 92 more (100 in all)")
    assert len(line) < MOST_LISTED * (LONGEST_NAME + 60)
    assert as_reported(config, event.facts)[0]["labels"] == names
    console = Console(width=80)
    with console.capture() as captured:
        console.print(line, markup=False)
    assert captured.get().count("negative") == 1


def test_what_lies_beside_an_adapter_answers_which_logit_is_which() -> None:
    about = about_adapters(*started(mail("ham", "spam"), base="/home/me/secret/bert-tiny"))
    assert about["base_model"] == "bert-tiny"
    assert about["labels"] == ["ham", "spam"]
    assert about["id2label"] == {"0": "ham", "1": "spam"}
    assert about["label2id"] == {"ham": 0, "spam": 1}
    assert about["tasks"] == [
        {"task": None, "labels": ["ham", "spam"], "negative": "ham", "first_logit": 0}
    ]


def test_logits_of_several_tasks_follow_one_another() -> None:
    tasks = {name: {"train": f"{name}.csv"} for name in ("mood", "topic")}
    two = (mail("bad", "good", "so", task="mood"), mail("bad", "good", task="topic"))
    about = about_adapters(*started(*two, tasks=tasks))
    assert about["labels"] == ["mood: bad", "mood: good", "mood: so", "topic: bad", "topic: good"]
    assert [task["first_logit"] for task in about["tasks"]] == [0, 3]
    assert about["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    config, event = started(*two, tasks=tasks)
    note = class_lines(config.model.task, as_reported(config, event.facts))[-1]
    assert note.endswith("to set the order: data.tasks.mood.labels, data.tasks.topic.labels")


def test_runs_that_recorded_no_classes_say_what_their_config_lists() -> None:
    assert about_adapters(*started(labels=["no", "yes"]))["labels"] == ["no", "yes"]
    assert about_adapters(*started(labels={"no": ["0"], "yes": ["1"]}))["labels"] == ["no", "yes"]
    assert "labels" not in about_adapters(*started())
    config, event = started()
    assert as_reported(config, event.facts) == []


@pytest.mark.parametrize(
    ("then", "now", "changed"),
    [
        ([mail("a", "b")], [mail("a", "b")], ""),
        ([mail("a", "b")], [mail("b", "a")], "'a' became 'b'"),
        ([mail("a", "b", task="x")], [mail("a", "c", task="x")], "'b' of x became 'c' of x"),
        ([mail("a", "b")], [mail("a", "b", "c")], "none became 'c'"),
    ],
)
def test_classes_that_changed_are_named(
    then: list[Classes], now: list[Classes], changed: str
) -> None:
    before, after = (replace(make_facts(), classes=tuple(found)) for found in (then, now))
    assert after.changed_class(before) == changed


def test_one_is_singular() -> None:
    assert counted(1, "row") == "1 row"
    assert counted(0, "row") == "0 rows"
    assert counted(1234, "class", "classes") == "1,234 classes"
