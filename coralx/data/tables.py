"""Tables of rows, as the readers of files return them: every cell as it was written."""

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
    """The error for one problem with the data, at `key` of the config."""
    return ConfigError("config", [f"{key}: {what}"], hint)


@dataclass(frozen=True)
class TableRows:
    """The rows of one table."""

    columns: tuple[str, ...]
    """All columns that any row has, in the order in which they first appear."""

    rows: Sequence[Row]
    """Cells by column: of the columns that were asked for alone, and only cells that are there."""

    name: str
    """What the config calls the table: a path, or a name on the hub."""

    where: str
    """Its place in messages: key and name."""

    hint: str = ""
    """What may be wrong where a column is missing."""

    def column(self, column: Column, key: str) -> str:
        """The name of the column that the config gives at `key`, by name or by number. Raises
        ConfigError where there is none."""
        if isinstance(column, int):
            if column < len(self.columns):
                return self.columns[column]
            present, near = f"{len(self.columns)} columns, counted from 0", ""
        elif column in self.columns:
            return column
        else:
            present = ", ".join(map(repr, self.columns)) or "none at all"
            near = did_you_mean(column, self.columns)
        wrong = f"no column {column!r} in {self.name}{near}; it has {present}"
        raise problem(key, wrong, self.hint)

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
    label with and without the `.0` that pandas gives it where another cell of its column is empty.
    """
    exact = {written: n for n, name in enumerate(classes) for written in classes[name]}
    other_forms = {
        written.removesuffix(".0") if written.endswith(".0") else f"{written}.0": number
        for written, number in exact.items()
        if WHOLE_NUMBER.fullmatch(written)
    }
    return {**other_forms, **exact}  # what the config writes itself comes first


class Gatherer:
    """Collects rows, and keeps the requested columns alone, by name or by number."""

    def __init__(self, requested: Collection[Column]) -> None:
        self._requested = requested
        self._kept: dict[str, str] = {}  # the rows share one string a name
        self.columns: dict[str, None] = {}
        self.rows: list[Row] = []

    def add(self, row: Mapping[str, Any]) -> None:
        for name in row:
            if name not in self.columns:
                if name in self._requested or len(self.columns) in self._requested:
                    self._kept[name] = name
                self.columns[name] = None
        kept = self._kept
        self.rows.append({kept[name]: cell for name, cell in row.items() if name in kept})


@dataclass(frozen=True)
class TableFile:
    """A file to be read, how, and how messages name it."""

    path: Path
    table: Table
    name: str
    """What the config calls it."""

    where: str
    """Its place in messages: key and name."""

    section: str
    """The path of the config's section that says how it is read, such as `data`."""

    requested: frozenset[Column]
    """The columns that are read, by name or number."""

    warnings: list[str] = field(default_factory=list)
    """Warnings are appended to it."""

    def problem(self, what: str, hint: str = "") -> ConfigError:
        return problem(self.where, what, hint)

    def warn(self, what: str) -> None:
        self.warnings.append(f"{self.where}: {what}")

    def rows(self, columns: Collection[str], rows: Sequence[Row], hint: str = "") -> TableRows:
        return TableRows(tuple(columns), rows, self.name, self.where, hint)

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
        """Which byte, in which line, the encoding cannot read; "" where there is none."""
        # The file is decoded again as a whole: the error of a decoder that read it in pieces counts
        # from the beginning of the piece.
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
    """A number that keeps the digits it was written in: as a label, 1.0 is not 1.00."""

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
    """A cell as it was written: booleans as JSON writes them, dates in ISO 8601; absent cells, of
    which NaN is one, empty. Raises ValueError, naming its kind, for what is no text."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN differs from itself
        return ""
    if isinstance(value, bool):  # before int, of which it is a subclass
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
