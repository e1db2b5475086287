"""Tables of rows: what readers of files give, every cell as it was written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from coralx.config.tables import Column, Table
from coralx.errors import ConfigError
from coralx.text import did_you_mean

Row = dict[str, Any]

SPLITS = ("train", "validation", "test")
BYTE_ORDER_MARK = "\ufeff"
WHOLE_NUMBER = re.compile(r"-?[0-9]+(\.0)?")


def problem(key: str, what: str, hint: str = "") -> ConfigError:
    """The error for one thing that is wrong with the data."""
    return ConfigError("config", [f"{key}: {what}"], hint)


@dataclass(frozen=True)
class Rows:
    """The rows of one table. `columns` are all that any row has, in the order in which they first
    appear; the rows hold the cells of those columns alone that were asked for, and lack a cell that
    was not written. `hint` says what may be wrong where a column is missing."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    name: str
    where: str
    hint: str = ""

    def column(self, wanted: Column, key: str) -> str:
        """The name of the column that the config's `key` points at, by name or by number. Raises
        ConfigError where there is none."""
        if isinstance(wanted, int):
            if wanted < len(self.columns):
                return self.columns[wanted]
            held, near = f"{len(self.columns)} columns, counted from 0", ""
        elif wanted in self.columns:
            return wanted
        else:
            held = ", ".join(map(repr, self.columns)) or "none at all"
            near = did_you_mean(wanted, self.columns)
        raise problem(key, f"no column {wanted!r} in {self.name}{near}; it has {held}", self.hint)

    def texts(self, column: str, hint: str = "") -> list[str]:
        """The column's cells as text. Raises ConfigError, naming the row, where one is not."""
        texts = []
        for number, row in enumerate(self.rows, 1):
            try:
                texts.append(as_text(row.get(column)))
            except ValueError as error:
                where = f"{self.where}, row {number}"
                what = f"column {column!r} must hold text, not {error}"
                raise problem(where, what, hint) from None
        return texts


def class_numbers(classes: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The number of the class to which each written label belongs. A whole number is the same
    label with and without the `.0` that pandas gives it where a row of its column has none."""
    exact = {written: n for n, name in enumerate(classes) for written in classes[name]}
    same = {
        written.removesuffix(".0") if written.endswith(".0") else f"{written}.0": number
        for written, number in exact.items()
        if WHOLE_NUMBER.fullmatch(written)
    }
    return {**same, **exact}


class Gatherer:
    """Collects rows, of which it keeps the wanted columns alone, by name or by number."""

    def __init__(self, wanted: Collection[Column]) -> None:
        self._wanted = wanted
        self._kept: dict[str, str] = {}  # one string a name, not one a row
        self.columns: dict[str, None] = {}
        self.rows: list[Row] = []

    def add(self, row: Mapping[str, Any]) -> None:
        for name in row:
            if name not in self.columns:
                if name in self._wanted or len(self.columns) in self._wanted:
                    self._kept[name] = name
                self.columns[name] = None
        kept = self._kept
        self.rows.append({kept[name]: cell for name, cell in row.items() if name in kept})


@dataclass(frozen=True)
class TableFile:
    """A file to be read as the config says at `section`, and its place in messages."""

    path: Path
    table: Table
    name: str
    where: str
    section: str
    wanted: frozenset[Column]
    warnings: list[str] = field(default_factory=list)

    def problem(self, what: str, hint: str = "") -> ConfigError:
        return problem(self.where, what, hint)

    def warn(self, what: str) -> None:
        self.warnings.append(f"{self.where}: {what}")

    def rows(self, columns: Collection[str], rows: Sequence[Row], hint: str = "") -> Rows:
        return Rows(tuple(columns), rows, self.name, self.where, hint)

    def lines(self, newline: str | None = None) -> Iterator[str]:
        """The file's lines as text, without a byte order mark; `newline` as `open` takes it.

        Raises ConfigError, naming the line, where it is not written in the table's encoding.
        """
        try:
            with self.path.open(encoding=self.table.encoding, newline=newline) as file:
                for number, line in enumerate(file):
                    yield line if number else line.removeprefix(BYTE_ORDER_MARK)
        except LookupError as error:
            raise self._encoding_problem(str(error)) from None
        except UnicodeError as error:
            raise self._encoding_problem(self._undecodable() or str(error)) from None
        except OSError as error:
            raise self.problem(f"cannot be read: {error.strerror or error}") from None

    def _encoding_problem(self, what: str) -> ConfigError:
        return self.problem(
            f"cannot be read: {what}",
            f"Set {self.section}.encoding to what the file was saved in: utf-8, utf-16, latin-1, "
            "cp1252, ...; or is it no text file at all?",
        )

    def _undecodable(self) -> str:
        """Where the file's encoding ends; a decoder that reads in pieces does not know."""
        content, encoding = self.path.read_bytes(), self.table.encoding
        try:
            content.decode(encoding)
        except UnicodeDecodeError as error:
            line = content[: error.start].decode(encoding, "replace").count("\n") + 1
            return (
                f"{encoding!r} codec can't decode byte 0x{content[error.start]:02x} in line {line} "
                f"(byte {error.start:,} of the file, counted from 0)"
            )
        return ""


class WrittenNumber(float):
    """A number that knows the digits it was written in."""

    __slots__ = ("written",)
    written: str

    def __new__(cls, written: str) -> WrittenNumber:
        number = super().__new__(cls, written)
        number.written = written
        return number

    def __repr__(self) -> str:
        return self.written

    __str__ = __repr__


def as_text(value: Any) -> str:
    """A cell as it was written: JSON's booleans in JSON's own words, dates in ISO 8601; absent
    cells, of which NaN is one, empty. Raises ValueError, naming its kind, for what is no text."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("bytes") from None
    if isinstance(value, int | float | timedelta | UUID):
        return str(value)
    kinds: dict[type, str] = {list: "a list", dict: "an object"}
    raise ValueError(kinds.get(type(value), f"a value of type {type(value).__name__}"))
