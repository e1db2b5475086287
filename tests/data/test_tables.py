"""Readers of tables: text as it was written, from every format; and mistakes named by line."""

from __future__ import annotations

import csv
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

pytest.importorskip("datasets")

import pandas
import pyarrow
from datasets import Dataset
from pyarrow import parquet

from coralx.config.data import Data
from coralx.config.tables import Column, Table
from coralx.data import reading
from coralx.data.reading import read_table
from coralx.data.splits import load_examples
from coralx.errors import ConfigError

LIAR = ROOT.parent / "shared" / "data" / "liar"
ROW = '{"text": "a", "label": "x"}\n'


class Given:
    """Files with some content, and what is read from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []

    def file(self, name: str, content: str, encoding: str = "utf-8") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode(encoding))
        return path

    def texts(
        self, path: Path, *columns: Column, key: str = "data.train", **settings: Any
    ) -> list[list[str]]:
        """Rows of the named columns."""
        wanted = columns or ("text", "label")
        self.warnings.clear()
        read = read_table(Table(**settings), str(path), key, wanted, self.warnings)
        cells = [read.texts(read.column(column, "data.text")) for column in wanted]
        return [list(row) for row in zip(*cells, strict=True)]

    def refusal(self, path: Path, **settings: Any) -> tuple[str, str]:
        with pytest.raises(ConfigError) as caught:
            self.texts(path, **settings)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{settings.get('key', 'data.train')}: {path}"), problem
        return problem.removeprefix(f"{settings.get('key', 'data.train')}: {path}"), (
            caught.value.hint
        )


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


# -- JSON ----------------------------------------------------------------------------------------

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


# -- delimited text ------------------------------------------------------------------------------

QUOTED = [
    ['a "x", y', "ham"],
    ["two\nlines", "spam"],
    ["tab\there", "ham"],
    ["plain", "spam"],
    ["", "ham"],
    ['"', "ham"],
]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_quoted_file_is_read_with_quoting(
    given: Given, name: str, quoting: Any, ending: str
) -> None:
    path = given.folder / name
    with path.open("w", newline="", encoding="utf-8") as file:
        delimiter = "\t" if name == "t.tsv" else ","
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=ending)
        writer.writerows([["text", "label"], *QUOTED])
    assert given.texts(path) == given.texts(path, quoting="standard") == QUOTED
    assert given.texts(path, 0, 1, header=False)[1:] == QUOTED
    assert given.warnings == []


@pytest.mark.parametrize(
    ("lines", "is_quoted"),
    [
        (['"Hi" he said\tham', '5" pipe\tspam'], False),
        (['"Hello\tham', "foo\tspam", 'bar"\tham'], False),  # quoting would lose two rows
        (['"Hello\tham', "foo\tspam"], False),
        (['he said "no"\tham', "foo\tspam"], None),
        (['"So true!"\tham', 'he said "no", ok\tspam'], False),
        (['"a, b"\tham', "c d\tspam"], True),  # as spreadsheets write it
        (['"a"\tham', '"b"\tspam'], True),
        (['"a ""x"""', "b\tham"], False),  # rows of different width
    ],
)
def test_tab_separated_text_counts_as_quoted_where_all_of_it_agrees(
    given: Given, lines: list[str], is_quoted: bool | None
) -> None:
    path = given.file("t.tsv", "\n".join(["text\tlabel", *lines]))
    found = given.texts(path)
    looks_quoted = any(cell[:1] == cell[-1:] == '"' for row in found for cell in row)
    (*warned,) = given.warnings
    is_doubtful = lines[0].startswith('"a, b"')  # only some of the texts have quote marks
    assert bool(warned) == (looks_quoted or is_doubtful)
    told = "cell in quote marks that need none" if is_doubtful else "data.quoting to none if that"
    assert all(told in warning for warning in warned)
    plain = given.texts(path, quoting="none")
    assert given.warnings == []
    if is_quoted is not False:
        assert found == given.texts(path, quoting="standard")
    if not is_quoted:
        assert found == plain == [line.split("\t") + [""] * ("\t" not in line) for line in lines]


@pytest.mark.parametrize(
    ("lines", "doubtful"),
    [
        (["it 1\tham", '"Quote 1"\tspam'], "1 cell"),
        (["it 1\tham", '"Quote 1"\tspam', '"Quote 2"\tspam'], "2 cells"),
        (['"Quote 1"\tham', '"Quote 2"\tspam'], ""),  # all texts; classes need none
        (['"Quote 1"\t"ham"', '7\t"spam"'], ""),  # all that is no number
        (["it 1\tham", '"Quote ""1"""\tspam'], ""),  # one needs them
        (['it\tham\t"a"', "it\tspam\tb"], ""),  # a column that is not read
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_quote_marks_that_may_belong_to_tab_separated_text_are_told(
    given: Given, lines: list[str], doubtful: str, header: bool
) -> None:
    title = "\t".join(["text", "label", "note"][: lines[0].count("\t") + 1])
    path = given.file("t.tsv", "\n".join([title, *lines] if header else lines))
    columns = ("text", "label") if header else (0, 1)
    given.texts(path, *columns, header=header)
    told = [f"{doubtful} in quote marks that need none"] if doubtful else []
    assert [told[0] in warning for warning in given.warnings] == [True] * len(told)
    for quoting in ("none", "standard"):
        given.texts(path, *columns, header=header, quoting=quoting)
        assert given.warnings == []


def test_quote_marks_that_csv_readers_pass_over_are_told(given: Given) -> None:
    path = given.file("t.csv", 'text,label\nok,x\n"Great" film,y\n"a\nb",x\n')
    assert given.texts(path) == [["ok", "x"], ["Great film", "y"], ["a\nb", "x"]]
    assert "in 1 of 3 rows (the first in line 3) a cell begins" in given.warnings[0]
    path = given.file("t.csv", 'text,label\n"Hi there,ham\nfoo,spam\nbar",ham\nq,r\n')
    assert len(given.texts(path)) == 2
    assert "in 1 of 2 rows (the first in line 2) a quoted cell has several" in given.warnings[0]
    assert len(given.texts(path, quoting="none")) == 4
    path = given.file("t.csv", "text,label\n'a',x\n'b',y\n")
    assert given.texts(path) == [["'a'", "x"], ["'b'", "y"]]
    assert "single quote marks" in given.warnings[0]


def test_odd_but_valid_delimited_text(given: Given) -> None:
    path = given.file("t.csv", "\n \ntext,label,text,\na,b,c,d\n\ne\n" + "x" * 200_000 + ",y\n")
    assert given.texts(path) == [["a", "b"], ["e", ""], ["x" * 200_000, "y"]]
    assert given.warnings == [
        f"data.train: {path}: the header has the column 'text' twice; the first is read"
    ]
    assert given.texts(path, 2, "Unnamed: 3")[:2] == [["c", "d"], ["", ""]]
    path = given.file("b.csv", '\ufeff"text","label"\r\r\n"a","b"\r\r\n')
    assert given.texts(path) == [["a", "b"]]
    path = given.file("t.txt", "text\tlabel\ra\tb\r")
    assert given.texts(path, delimiter="\t") == [["a", "b"]]
    assert given.texts(given.file("s.csv", "text§label\na§b\n"), delimiter="§") == [["a", "b"]]
    with pytest.raises(ValueError, match="must not be a quote mark"):
        Data(train="t.csv", delimiter='"')


@pytest.mark.skipif(not LIAR.is_dir(), reason="the LIAR data set lies beside the checkout only")
@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_unquoted_text_with_stray_quotes_stays_as_it_is(given: Given, name: str) -> None:
    lines = (LIAR / f"{name}.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    expected = [line.split("\t") for line in lines]
    assert given.texts(LIAR / f"{name}.tsv", *range(14), header=False) == expected
    assert "rows a cell begins and ends with a quote mark" in given.warnings[0]
    assert len(given.warnings) == 1


def test_hints_name_the_keys_of_the_table_that_is_meant(given: Given) -> None:
    rows = "".join(f"t{n},{'xy'[n % 2]}\n" for n in range(40))
    data = {"train": str(given.file("t.csv", f"text,label\n{rows}"))}
    odd = str(given.file("odd.csv", 'text\n"a,b\n'))
    lines = str(given.file("t.jsonl", '{"goal": 1}\n'))
    with pytest.raises(ConfigError) as caught:
        load_examples(Data.model_validate({**data, "attacks": {"file": odd}}), seed=1, name="spam")
    assert "data.tasks.spam.attacks.quoting" in caught.value.hint
    settings = {"file": odd, "quoting": "none", "delimiter": ";"}
    examples = load_examples(
        Data.model_validate(
            {**data, "clean_holdout": {**settings, "file": data["train"], "text": "text,label"}}
        ),
        seed=1,
    )
    assert sum(map(len, examples.clean.values())) == 40
    with pytest.raises(ConfigError, match="no column 'text'") as caught:
        load_examples(Data.model_validate({**data, "clean_holdout": lines}), seed=1)
    assert caught.value.hint == ""


# -- parquet and the hub -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        ([date(2020, 1, 22), None], ["2020-01-22", ""]),
        ([datetime(2020, 1, 22, 10), None], ["2020-01-22T10:00:00", ""]),
        (pandas.to_datetime(pandas.Series(["2020-01-22", None])).dt.tz_localize("UTC"), None),
        ([Decimal("1.50"), Decimal("100")], ["1.50", "100.00"]),
        ([b"ab", "ü".encode()], ["ab", "ü"]),
        ([True, None], ["true", ""]),
        ([1, None], ["1", ""]),
        ([1.0, 2.0], ["1.0", "2.0"]),
        ([1.0, None], ["1", ""]),
        ([0.5, 1.0, float("nan")], ["0.5", "1.0", ""]),
        ([1e300, None], ["1e+300", ""]),
        (pandas.Categorical(["x", "y", None]), ["x", "y", ""]),
        (pyarrow.array([None, None], pyarrow.float64()), ["", ""]),
        (pyarrow.array(["a", "b"], pyarrow.large_string()), ["a", "b"]),
    ],
)
def test_parquet_cells_become_text(given: Given, cells: Any, texts: list[str] | None) -> None:
    path = given.folder / "t.parquet"
    parquet.write_table(pyarrow.table({"other.x": cells, "text": cells}), path)
    texts = texts or ["2020-01-22T00:00:00+00:00", ""]
    assert given.texts(path, "text") == [[text] for text in texts]
    assert given.texts(path, 0, 1) == [[text, text] for text in texts]


def test_parquet_without_rows_and_with_what_is_no_text(given: Given) -> None:
    path = given.folder / "t.parquet"
    pandas.DataFrame({"text": [], "label": []}).to_parquet(path)
    assert given.refusal(path)[0] == ": holds no rows"
    table = {"text": ["a", "b"], "label": [[{"role": "user"}], None], "bytes": [b"\xff", b""]}
    parquet.write_table(pyarrow.table(table), path)
    assert given.refusal(path)[0] == ", row 1: column 'label' must hold text, not a list"
    twice = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    parquet.write_table(twice, given.folder / "twice.parquet")
    assert "2 times" in given.refusal(given.folder / "twice.parquet")[0]
    read = read_table(Table(), str(path), "data.train", ["label"], [])
    assert list(read.rows) == [{"label": [{"role": "user"}]}, {"label": None}]
    with pytest.raises(ConfigError, match="row 1: column 'bytes' must hold text, not bytes"):
        given.texts(path, "bytes")


def test_nan_of_a_hub_data_set_is_an_absent_cell(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Dataset.from_dict({"text": ["a", "b"], "id": [1, 2], "label": [1.0, float("nan")]})
    monkeypatch.setattr(reading, "load_dataset", lambda _, **__: table)
    assert given.texts(Path("some/name")) == [["a", "1.0"], ["b", ""]]
    assert given.texts(Path("some/name"), 1) == [["1"], ["2"]]
