"""Delimited text, parquet and the hub: text as it was written; and mistakes named by line."""

from __future__ import annotations

import csv
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
from coralx.config.tables import Table
from coralx.data import reading
from coralx.data.reading import read_table
from coralx.data.splits import load_examples
from coralx.errors import ConfigError
from tests.support.tables import Given

LIAR = ROOT.parent / "shared" / "data" / "liar"


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
