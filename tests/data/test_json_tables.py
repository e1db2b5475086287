"""JSON tables: text as it was written, whatever other rows hold; mistakes named by place."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("datasets")

import pandas
import pyarrow
from pyarrow import parquet

from coralx.config.data import Data
from coralx.config.tables import Table
from coralx.data.reading import read_table
from coralx.data.splits import load_examples
from coralx.errors import ConfigError
from tests.support.tables import Given

ROW = '{"text": "a", "label": "x"}\n'


WRITTEN = [
    ('"caf\\u00e9 \\"x\\" good"', 'café "x" good'),
    ("5", "5"),
    ("1.0", "1.0"),
    ("1.50", "1.50"),
    ("1e3", "1e3"),
    ("-0", "-0"),
    ("12345678901234567890", "12345678901234567890"),
    ("1" * 5_000, "1" * 5_000),
    ("1e999", "1e999"),
    ("true", "true"),
    ("null", ""),
    ("NaN", ""),
    ("-Infinity", "-Infinity"),
    ('"NaN"', "NaN"),
    ('"2020-01-22T10:00:00Z"', "2020-01-22T10:00:00Z"),
    ('"2020-01-22"', "2020-01-22"),
    ('"a\u2028b\x85c"', "a\u2028b\x85c"),
    ('"\\ud83d\\ude00"', "\U0001f600"),
]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "lines.json", "list.jsonl", "pretty.json"])
def test_json_gives_the_text_that_was_written_whatever_stands_in_other_rows(
    given: Given, name: str
) -> None:
    rows = [f'{{"text": {written}, "label": "x"}}' for written, _ in WRITTEN]
    content = "\n".join(rows)
    if name in ("t.json", "list.jsonl"):
        content = f"[{', '.join(rows)}]"
    if name == "pretty.json":
        content = "\n\n[\n" + ",\n".join(row.replace(", ", ",\n") for row in rows) + "\n]\n"
    expected = [[text, "x"] for _, text in WRITTEN]
    assert given.texts(given.file(name, content)) == expected
    assert given.texts(given.file(name, "\ufeff" + content)) == expected
    for encoding in ("utf-16", "utf-32"):
        path = given.file(name, content, encoding)
        assert given.texts(path, encoding=encoding) == expected


def test_columns_are_those_of_all_rows_and_may_change_their_type(given: Given) -> None:
    rows = [{"id": 1, "text": None, "label": 0}] * 3 + [
        {"id": "a39", "text": "late", "label": "0"},
        {"extra": [1, {"b": None}], "more": "m", "text": "e"},
    ]
    path = given.file("t.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n \n")
    assert given.texts(path, "text", "label", "more") == [
        *([["", "0", ""]] * 3),
        ["late", "0", ""],
        ["e", "", "m"],
    ]
    assert given.texts(path, 2, 4) == [*([["0", ""]] * 3), ["0", ""], ["", "m"]]
    with pytest.raises(ConfigError, match=r"no column 'nosuch' .*'id', 'text', 'label', 'extra', "):
        given.texts(path, "nosuch")


def test_rows_without_text_or_label_are_left_out_alike_in_every_format(given: Given) -> None:
    rows = [(f"t{n}", float(n % 2)) for n in range(40)]
    missing = [("lost", float("nan")), (None, 1.0)]
    frame = pandas.DataFrame([*rows, *missing], columns=["text", "label"])
    frame.to_parquet(given.folder / "pandas.parquet")
    parquet.write_table(
        pyarrow.table({"text": [t for t, _ in rows] + ["lost", None], "label": [*frame.label]}),
        given.folder / "nan.parquet",
    )
    lines = [f'{{"text": "{text}", "label": {int(label)}}}' for text, label in rows]
    lines += ['{"text": "lost", "label": NaN}', '{"text": null, "label": 1}']
    given.file("t.jsonl", "\n".join(lines))
    given.file("t.json", f"[{','.join(lines)}]")
    bare = "".join(f"{text},{int(label)}\n" for text, label in rows)
    given.file("t.csv", f"text,label\n{bare}lost,\n,1\n")
    for name in ("pandas.parquet", "nan.parquet", "t.jsonl", "t.json", "t.csv"):
        path = given.folder / name
        examples = load_examples(Data(train=str(path)), seed=1)
        assert examples.labels == ("0", "1"), name
        assert set(examples.warnings) == {
            f"data.train: {path}: 1 row without a {what} was left out" for what in ("text", "label")
        }
        assert sum(len(s) for s in (examples.train, examples.validation, examples.test)) == 40


def test_a_whole_number_is_the_same_label_with_and_without_a_decimal(given: Given) -> None:
    def table(name: str, zero: str, one: str) -> str:
        rows = [f"{name}{n},{one if n % 2 else zero}" for n in range(40)]
        return str(given.file(f"{name}.csv", "text,label\n" + "\n".join(rows)))

    files: dict[str, Any] = {"train": table("a", "0", "1"), "validation": table("b", "0.0", "1.0")}
    attacks: Any = {"file": table("c", "0.0", "1.0")}
    examples = load_examples(Data(**files, attacks=attacks, labels=("0", "1")), seed=1)
    assert examples.labels == ("0", "1")
    assert {(row.text[-1] in "13579", row.label) for row in examples.validation} == {(0, 0), (1, 1)}
    assert sum(map(len, examples.attacks.values())) == 20
    assert load_examples(Data(**files), seed=1).validation == examples.validation


@pytest.mark.parametrize(
    ("name", "content", "says", "hints"),
    [
        ("t.jsonl", "null\n" + ROW, ": line 1 is null, where a row is needed", "is an object"),
        ("t.jsonl", ROW * 2 + "\n null\n", ": line 4 is null, where", "is an object"),
        ("t.jsonl", ROW + '"x"\n', ": line 2 is a string, where a row is needed: 'x'", "object"),
        ("t.jsonl", "42\n" + ROW, ": line 1 is a number, where a row is needed: 42", "object"),
        ("t.jsonl", "false\n", ": line 1 is false, where", "object"),
        ("t.jsonl", '["t"]\n' + ROW, ": line 1 is a list, where a row is needed: ['t']", "object"),
        ("t.jsonl", '["t"]\n', ": line 1 is a list, where a row is needed: ['t']", "object"),
        ("t.jsonl", '\n["t"]\n["u"]\n', ": line 2 is a list", "object"),
        ("t.jsonl", f"[\n{ROW},\n3\n]", ": element 2 is a number", "object"),
        ("t.json", '["t"]\n', ": element 1 is a string, where a row is needed: 't'", "object"),
        ("t.json", ROW + "42\n", ": line 2 is a number, where a row is needed: 42", "object"),
        ("t.jsonl", ROW + '["t"]\n', ": line 2 is a list, where", "object"),
        ("t.jsonl", ROW * 80 + '{"text": "a", "la', ": line 81, character 15: not valid", "cut"),
        ("t.jsonl", ROW + '{"text": "a",' + ROW, ": line 2, character 14: not valid JSON", "Corr"),
        ("t.jsonl", ROW + "{'text': 'a'}\n", ": line 2, character 2: not valid JSON", "Correct"),
        ("t.jsonl", ROW + '{"a": {"b": 1, "b": 2}}', ": line 2: the key 'b' stands twice", ""),
        ("t.jsonl", '{"a": "\\ud83d"}', ": line 1: \\ud83d is half a character", ""),
        ("t.jsonl", ROW + '{"a": ' + "[" * 99_999, ": line 2: lists or objects are nested", ""),
        ("t.json", f"[{ROW},\n{ROW},\n", ": line 4, character 2: not valid JSON", "cut off"),
        ("t.json", f"[{ROW},\n{ROW} {ROW}]", ": line 4, character 2: not valid JSON", "Correct"),
        ("t.json", f"[{ROW}, 3]", ": element 2 is a number, where a row is needed: 3", "object"),
        ("t.json", f"[\n{ROW}]\n[]", ": something follows the end of the list", "one list"),
        ("t.json", '{\n"text": "a",\n"label" 1}', ": line 3, character 9: not valid", "Correct"),
        ("t.json", '{"text": ["a", "b"], "label": ["x"]}', "different lengths: 'text' 2", ""),
        ("t.json", f'{{"a": [{ROW}], "b": [{ROW}]}}', "one object with the keys 'a', 'b'", "list"),
        ("t.json", f'{{"0": {ROW}, "1": {ROW}}}', "one object with the keys '0', '1'", "records"),
        ("t.json", "null", ": line 1 is null", "object"),
        ("t.json", '{"text": ["a"], "label": [["x"]]}', ", row 1: column 'label' must", ""),
        *[(name, "", ": holds no rows", "") for name in ("t.jsonl", "t.json", "t.csv", "t.tsv")],
        ("t.jsonl", "\ufeff\n \n", ": holds no rows", ""),
        ("t.json", " [ ] ", ": holds no rows", ""),
        ("t.csv", "text,label\n", ": holds no rows", ""),
        ("t.csv", "text,label\na,b\n\nc,d,e\n", ": line 4 has more cells than the header", "quot"),
        ("t.csv", 'text,label\na,b\n"c,d\ne,f\n', ": the row that begins in line 3 has", "none"),
        ("t.csv", 'text,label\n"c,d\n"e" f,g\n', ": the row that begins in line 2 has", "none"),
        ("t.jsonl.gz", ROW, ": unknown kind of file '.gz'", "Unpack"),
        ("t.parquet", ROW, ": cannot be read: ", "Is it a parquet file?"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(
    given: Given, name: str, content: str, says: str, hints: str
) -> None:
    problem, hint = given.refusal(given.file(name, content))
    assert says in problem, problem
    assert len(problem) < 300
    assert hints in hint
    assert "delimiter" not in hint or name == "t.csv"


@pytest.mark.parametrize(
    "whole",
    [
        {"text": ["a", "b"], "label": [1, 2]},
        {"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 2}},
        {"version": "1", "data": [{"text": "a", "label": 1}, {"text": "b", "label": 2}]},
    ],
)
def test_a_json_file_may_be_an_object_of_columns_or_hold_its_rows_under_a_key(
    given: Given, whole: dict[str, Any]
) -> None:
    for indent in (None, 1):
        path = given.file("t.json", json.dumps(whole, indent=indent))
        assert given.texts(path) == [["a", "1"], ["b", "2"]]


def test_a_chat_may_be_the_only_row_and_its_turns_of_mixed_type(given: Given) -> None:
    turns = [{"role": "user", "content": "a", "weight": 0}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": turns, "message": message} for message in (5, "x", {"a": 1}, None)]
    path = given.file("t.jsonl", "\n".join(json.dumps({**row, "type": 1}) for row in rows))
    read = read_table(Table(), str(path), "data.train", ["messages"], [])
    assert list(read.rows) == [{"messages": turns}] * 4
    path = given.file("one.json", json.dumps({"messages": turns}))
    assert read_table(Table(), str(path), "data.train", ["messages"], []).rows[0] == {
        "messages": turns
    }


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv"])
def test_an_encoding_that_is_not_the_files_is_named_with_its_line(given: Given, name: str) -> None:
    content = {"t.jsonl": ROW + '{"text": "ü", "label": "y"}\n', "t.csv": "text,label\nü,y\n"}
    content["t.json"] = f"[{ROW},\n" + '{"text": "ü", "label": "y"}]'
    path = given.file(name, content[name], "latin-1")
    problem, hint = given.refusal(path, key="data.tasks.a.train")
    line = 3 if name == "t.json" else 2
    assert f"byte 0xfc in line {line} (byte {path.read_bytes().index(0xFC)} of" in problem
    assert "data.tasks.a.encoding" in hint
    assert given.texts(path, encoding="latin-1")[-1] == ["ü", "y"]
