"""Attacks, clean hold-outs and groups: what is read, split and refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from coralx.config import dump_yaml, parse_config
from coralx.config.data import Data
from coralx.config.load import parse_yaml
from coralx.data.examples import Example
from coralx.data.splits import Examples, load_examples
from coralx.errors import ConfigError
from tests.support.tables import lines, problems_of


def read(texts: str, **settings: Any) -> Examples:
    return load_examples(Data(train=texts, labels=("ok", "bad"), **settings), seed=1)


def refusal(texts: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(texts, **settings)
    (problem,) = caught.value.problems
    return f"{problem} | {caught.value.hint}"


def words(rows: tuple[Example, ...]) -> list[str]:
    return [row.text for row in rows]


# -- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"attacks": "rows.csv"}, {"attacks": {"file": "rows.csv"}}),
        ({"attacks": ["swap", "prefix"]}, {"attacks": {"perturbations": ["swap", "prefix"]}}),
        ({"clean_holdout": "clean.csv"}, {"clean_holdout": {"file": "clean.csv"}}),
    ],
)
def test_the_short_form_means_the_long_one(short: dict[str, Any], long: dict[str, Any]) -> None:
    one, other = (parse_config({"data": data}, "test.yaml") for data in (short, long))
    assert one == other
    assert parse_config(parse_yaml(dump_yaml(one), "t"), "t") == one


def test_the_long_form_says_how_its_file_is_read(texts: str, tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_bytes("1;ü one\n2;ö two\n3;ä three\n".encode("latin-1"))
    table = {"file": str(path), "delimiter": ";", "encoding": "latin-1", "header": False, "text": 1}
    found = read(texts, attacks=table, clean_holdout=table)
    for halves in (found.attacks, found.clean):
        read_rows = [*words(halves["validation"]), *words(halves["test"])]
        assert sorted(read_rows) == sorted(["ü one", "ö two", "ä three"])


# -- halves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["attacks", "clean"])
@pytest.mark.parametrize("rows", [2, 3, 9, 10])
def test_halves_are_disjoint_complete_and_repeatable(
    texts: str, tmp_path: Path, kind: str, rows: int
) -> None:
    file = lines(tmp_path / "more.jsonl", [{"text": f"row {n}"} for n in range(rows)])
    key = {"attacks": "attacks", "clean": "clean_holdout"}[kind]
    found = getattr(read(texts, **{key: file}), kind)
    assert getattr(read(texts, **{key: file}), kind) == found
    assert [len(found[split]) for split in ("validation", "test")] == [(rows + 1) // 2, rows // 2]
    both = [*words(found["validation"]), *words(found["test"])]
    assert sorted(both) == sorted(f"row {n}" for n in range(rows))
    assert {row.label for half in found.values() for row in half} == {int(kind == "attacks")}


def test_another_seed_makes_other_halves(texts: str, attacks: str) -> None:
    data = Data.model_validate({"train": texts, "labels": ("ok", "bad"), "attacks": attacks})
    halves = {tuple(words(load_examples(data, seed).attacks["test"])) for seed in range(5)}
    assert len(halves) > 1


def test_attacks_and_a_hold_out_of_one_file_are_halved_apart(texts: str, attacks: str) -> None:
    found = read(texts, attacks=attacks, clean_holdout=attacks)
    assert words(found.attacks["test"]) != words(found.clean["test"])


def test_attacks_leave_the_splits_as_they_were(texts: str, attacks: str) -> None:
    with_them = read(texts, attacks=attacks, clean_holdout=attacks)
    without = read(texts)
    for split in ("train", "validation", "test"):
        assert getattr(with_them, split) == getattr(without, split)
    assert (without.attacks, without.clean) == ({}, {})


def test_a_limit_is_of_both_halves_together(texts: str, attacks: str) -> None:
    table = {"file": attacks, "limit": 5}
    found = read(texts, attacks=table, clean_holdout=table)
    assert [len(found.attacks[split]) for split in ("validation", "test")] == [3, 2]
    assert [len(found.clean[split]) for split in ("validation", "test")] == [3, 2]


def test_perturbations_are_of_each_splits_own_positive_rows(texts: str) -> None:
    kinds = ("homoglyph", "prefix")
    found = read(texts, attacks=kinds, validation_fraction=0.2, test_fraction=0.2)
    for split in ("validation", "test"):
        positive = [row for row in getattr(found, split) if row.label == 1]
        made = found.attacks[split]
        assert len(made) == 2 * len(positive) > 0
        assert all(row.label == 1 for row in made)
        assert all(
            attack.text.endswith(row.text) for row, attack in zip(positive, made[1::2], strict=True)
        )
    assert read(texts, attacks=kinds, validation_fraction=0.2, test_fraction=0.2) == found
    for split in ("validation", "test"):
        positive = [row for row in getattr(found, split) if row.label]
        sources = [row.source for row in found.attacks[split]]
        assert sources == [n for n in range(len(positive)) for _ in kinds]
    capped = read(texts, attacks={"perturbations": kinds, "limit": 3}, test_fraction=0.2)
    assert [len(half) for half in capped.attacks.values()] == [3, 3]


def test_rows_of_the_first_class_are_no_attacks(texts: str, tmp_path: Path) -> None:
    rows = [{"text": f"row {n}", "label": ["ok", "bad", "bad"][n % 3]} for n in range(9)]
    file = lines(tmp_path / "mixed.jsonl", rows)
    found = read(texts, attacks=file, clean_holdout=file)
    kept = [*words(found.attacks["validation"]), *words(found.attacks["test"])]
    assert sorted(kept) == sorted(f"row {n}" for n in range(9) if n % 3)
    assert any("3 rows of the first class were left out" in w for w in found.warnings)
    clean = [*words(found.clean["validation"]), *words(found.clean["test"])]
    assert sorted(clean) == ["row 0", "row 3", "row 6"]
    assert any("6 rows of other classes were left out" in w for w in found.warnings)


def test_labels_that_are_in_no_class_are_refused(texts: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "odd.jsonl", [{"text": f"row {n}", "label": "worse"} for n in range(3)])
    for key in ("attacks", "clean_holdout"):
        problem = refusal(texts, **{key: file})
        assert problem.startswith(f"data.{key}.file: {file}: row 1 has the label 'worse'")


def test_a_hold_out_without_clean_rows_is_refused(texts: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "bad.jsonl", [{"text": f"row {n}", "label": "bad"} for n in range(3)])
    assert "holds no clean rows: none of its 3 rows is labelled 'ok'" in refusal(
        texts, clean_holdout=file
    )


def test_texts_said_twice_and_texts_that_were_trained_on_are_told(
    texts: str, tmp_path: Path
) -> None:
    known = read(texts).train[0].text
    file = lines(tmp_path / "own.jsonl", [{"text": t} for t in (known, "new", "new", "other")])
    found = read(texts, attacks=file, clean_holdout=file)
    said = [w for w in found.warnings if "1 row with the text of an earlier row was left out" in w]
    assert len(said) == 2
    for kind in ("attacks", "clean"):
        assert any(f"1 of 3 {kind} texts stands in the train split" in w for w in found.warnings)


def test_rows_without_a_text_are_left_out_and_counted(texts: str, tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("one", " ", "two", "")]
    file = lines(tmp_path / "gaps.jsonl", rows)
    found = read(texts, attacks=file, clean_holdout=file)
    for key in ("data.attacks.file", "data.clean_holdout.file"):
        expected = f"{key}: {file}: 2 rows without a text were left out"
        assert expected in found.warnings


def test_prompts_for_a_chat_model_are_read_whatever_label_they_have(tmp_path: Path) -> None:
    pairs = [{"prompt": f"say {n}", "completion": f"{n}"} for n in range(20)]
    prompts = [{"text": f"harm {n}", "label": "no"} for n in range(4)]
    data = {
        "train": lines(tmp_path / "pairs.jsonl", pairs),
        "attacks": lines(tmp_path / "harm.jsonl", prompts),
    }
    found = load_examples(Data.model_validate(data), 1, "sft")
    assert sum(map(len, found.attacks.values())) == 4


# -- files that cannot serve ---------------------------------------------------------------------


@pytest.mark.parametrize("key", ["attacks", "clean_holdout"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read|holds no rows"),
        ("text\n", "holds no rows"),
        ("text\none\n", "holds 1 row; at least two are needed"),
        ("text,x\n,1\n ,2\n", "column 'text' is empty in all 2 rows"),
    ],
)
def test_a_file_that_holds_too_little_is_named(
    texts: str, tmp_path: Path, key: str, content: str, says: str
) -> None:
    path = tmp_path / "few.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read(texts, **{key: str(path)})
    assert caught.value.problems[0].startswith(f"data.{key}.file: {path}")


@pytest.mark.parametrize("key", ["attacks", "clean_holdout"])
def test_a_missing_column_of_texts_is_named_with_those_that_are_there(
    texts: str, tmp_path: Path, key: str
) -> None:
    file = lines(tmp_path / "other.jsonl", [{"goal": f"x{n}", "txt": "y"} for n in range(3)])
    problem = refusal(texts, **{key: file})
    assert problem.startswith(f"data.{key}.text: no column 'text' in {file}")
    assert "it has 'goal', 'txt'" in problem
    assert read(texts, **{key: {"file": file, "text": "goal"}})


def test_an_attack_set_without_attacks_is_refused(texts: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "ok.jsonl", [{"text": f"row {n}", "label": "ok"} for n in range(4)])
    problem = refusal(texts, attacks=file)
    assert problem.startswith(f"data.attacks.file: {file}: holds no attacks: all of its 4 rows")
    assert "'ok', the first class" in problem


def test_a_limit_of_one_is_not_taken_for_a_file_of_one_row(texts: str, attacks: str) -> None:
    for key in ("attacks", "clean_holdout"):
        problem = refusal(texts, **{key: {"file": attacks, "limit": 1}})
        assert problem.startswith(f"data.{key}.limit: 1")
        assert "at least two" in problem


def test_a_missing_column_of_groups_is_named(texts: str) -> None:
    problem = refusal(texts, group="gruop")
    assert problem.startswith("data.group: no column 'gruop'")
    assert "'party'" in problem
    found = read(texts, group="party")
    assert Counter(row.group for row in found.train).keys() == {"a", "b"}


# -- configs that make no sense ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "path", "says"),
    [
        ({}, "data.attacks", "one of the two"),
        ({"file": "a.csv", "perturbations": ["swap"]}, "data.attacks", "one of the two"),
        ([], "data.attacks", "one of the two"),
        (["swop"], "data.attacks.perturbations.0", "'swap'"),
        (["swap", "swap"], "data.attacks", "listed twice"),
        ({"file": "a", "judge": "harsh"}, "data.attacks.judge", "`flagged`"),
        ({"perturbations": ["swap"], "judge": "refusal"}, "data.attacks", "prompts in a `file`"),
        ({"file": "a", "limit": 0}, "data.attacks.limit", "found 0"),
        ({"fiel": "a"}, "data.attacks.fiel", "'file'"),
        ({"file": "a", "quoting": "double"}, "data.attacks.quoting", "'standard'"),
        ({"perturbations": ["swap"], "quoting": "none"}, "data.attacks", "`quoting` is for"),
        (7, "data.attacks", "expected keys and values"),
    ],
)
def test_attacks_that_make_no_sense_are_refused(written: Any, path: str, says: str) -> None:
    problems = problems_of({"attacks": written})
    assert problems[0].startswith(f"{path}: "), problems
    assert says in problems[0]


@pytest.mark.parametrize(
    ("task", "written", "says"),
    [
        ("sequence-classification", {"file": "a", "judge": "refusal"}, "gives no answers"),
        ("sequence-classification", {"file": "a", "judge": "my:judge"}, "gives no answers"),
        ("sft", {"file": "a", "judge": "flagged"}, "sft flags nothing"),
        ("sft", ["swap"], "sft flags nothing"),
    ],
)
def test_a_judge_of_the_wrong_kind_is_refused(task: str, written: Any, says: str) -> None:
    (problem,) = problems_of({"attacks": written}, task)
    assert problem.startswith("data: `data.attacks")
    assert says in problem


@pytest.mark.parametrize(
    ("task", "judge"),
    [
        ("sequence-classification", "flagged"),
        ("label-tokens", "flagged"),
        ("label-tokens", "refusal"),
        ("label-tokens", "my:judge"),
        ("sft", "refusal"),
        ("sft", "my.own:judge"),
    ],
)
def test_a_judge_of_a_fitting_kind_is_kept(task: str, judge: str) -> None:
    data = {"attacks": {"file": "a", "judge": judge}}
    config = parse_config({"model": {"task": task}, "data": data}, "test.yaml")
    assert config.data.attacks is not None
    assert config.data.attacks.judge == judge


@pytest.mark.parametrize("key", ["group", "clean_holdout"])
def test_what_only_classifiers_are_judged_by_is_refused_for_sft(key: str) -> None:
    (problem,) = problems_of({key: "x"}, "sft")
    assert problem.startswith(f"data: `{key}` is for ")
