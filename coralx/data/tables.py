"""Tables of rows from files, packages and the hub, every cell as it was written."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import pandas
from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError

from coralx.config.data import Table
from coralx.config.inputs import FORMATS, is_local
from coralx.config.suggest import did_you_mean
from coralx.data import hub, tweets
from coralx.errors import ConfigError

Row = dict[str, Any]

SPLITS = ("train", "validation", "test")


def problem(key: str, what: str, hint: str = "") -> ConfigError:
    """The error for one thing that is wrong with the data."""
    return ConfigError("config", [f"{key}: {what}"], hint)


def read_table(table: Table, name: str, key: str) -> list[Row]:
    """Rows of a file, of `builtin:<name>`, or of a hub data set (its split of the key's name, else
    its train split), read as `table` says; `key` is where the config names it.

    Raises ConfigError where it cannot be read, or holds no rows.
    """
    where, path = f"{key}: {name}", Path(name)
    section, _, last = key.rpartition(".")
    rows = _read(table, name, where, section, last if last in SPLITS else "train", path)
    if not rows:
        raise problem(where, "holds no rows")
    return rows


def _read(table: Table, name: str, where: str, section: str, split: str, path: Path) -> list[Row]:
    if name.startswith("builtin:"):
        return list(tweets.table(name.removeprefix("builtin:")))
    kind = FORMATS.get(path.suffix.lower())
    if isfile(path) and kind is None:
        known = ", ".join(FORMATS)
        raise problem(where, f"unknown kind of file {path.suffix!r}; known: {known}")
    if not isfile(path) and (kind is not None or is_local(name)):
        raise problem(where, "no such file")
    if not isfile(path):
        return _from_hub(name, where, split)
    try:
        if kind == "csv":
            return _read_csv(table, path)
        rows = load_dataset(kind, data_files=str(path), split="train", streaming=True)
        return [dict(row) for row in rows]
    except pandas.errors.ParserWarning:
        raise problem(
            where,
            "some rows have more cells than the header",
            f"Quote cells that hold the delimiter, or correct {section}.delimiter.",
        ) from None
    except Exception as error:  # datasets passes on the errors of pandas, pyarrow and the hub
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        reason = str(cause or error).strip().splitlines() or [type(error).__name__]
        raise problem(
            where,
            f"cannot be read: {reason[0]}",
            f"Check {section}.delimiter, {section}.encoding and {section}.header, or the name.",
        ) from None


def _from_hub(name: str, where: str, split: str) -> list[Row]:
    try:
        return [dict(row) for row in load_dataset(name, split=split)]
    except Exception as error:  # datasets passes on the errors of pandas, pyarrow and the hub
        met = hub.trouble(error, name, "data set")
        what = met.what if met else hub.reason(error.__cause__ or error)
        hint = met.way_out if met else f"Check the name, and that it has a split {split!r}."
        raise problem(where, f"cannot be read: {what}", hint) from None


def _read_csv(table: Table, path: Path) -> list[Row]:
    """Tab-delimited files are read without quoting."""
    delimiter = table.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    with warnings.catch_warnings():
        # pandas would drop surplus cells, or take the first column for an index
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        frame = pandas.read_csv(
            path,
            sep=delimiter,
            header=0 if table.header else None,
            index_col=False,
            encoding=table.encoding,
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        )
    frame.columns = frame.columns.map(str)
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]


def column_name(wanted: str | int, key: str, names: Sequence[str], table: str) -> str:
    """The name under which a table holds the column that the config's `key` points at, by name or
    by number. Raises ConfigError where it holds none."""
    if isinstance(wanted, int):
        if wanted < len(names):
            return names[wanted]
        held, near = f"{len(names)} columns, counted from 0", ""
    elif wanted in names:
        return wanted
    else:
        held, near = ", ".join(map(repr, names)), did_you_mean(wanted, names)
    section = key.rpartition(".")[0]
    raise problem(
        key,
        f"no column {wanted!r} in {table}{near}; it has {held}",
        f"If the columns look glued together, {section}.delimiter is wrong; if they look like a "
        f"row, set {section}.header: false.",
    )


def as_text(value: Any) -> str:
    """A cell as it was written: JSON's booleans in JSON's own words, absent cells empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
