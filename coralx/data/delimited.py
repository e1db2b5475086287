"""Rows of delimited text: csv, tsv, and whatever else stands between cells."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from coralx.data.tables import Gatherer, Rows, TableFile
from coralx.text import counted

LONGEST_CELL = 2**31 - 1
"""The csv module takes no more than 131,072 characters a cell unless told otherwise."""

_QUOTED = re.compile(r'(?:^|(?<=\t))"((?:[^"]|"")*)"(?=[\t\r\n]|$)')
"""A cell in quote marks, of tab-separated text."""


@dataclass(frozen=True)
class Record:
    """The cells of one record, the lines they are written in, and the number of the first of them.
    A record is not closed where the file ends within quote marks."""

    line: int
    cells: list[str]
    lines: Sequence[str]
    is_closed: bool = True

    def follows_the_standard(self, delimiter: str) -> bool:
        """Whether cells that begin with a quote mark end with one, and double those within."""
        if not any('"' in line for line in self.lines):
            return True
        try:
            list(csv.reader(self.lines, delimiter=delimiter, strict=True))
        except csv.Error:
            return False
        return self.is_closed

    def looks_like_several(self, delimiter: str, width: int) -> bool:
        """Whether each of its lines could be a row of its own. In prose a comma at a line's end or
        before a space is none between cells."""
        if width < 2 or len(self.lines) < 2:
            return False
        split = [line.rstrip("\r\n").split(delimiter) for line in self.lines]
        return all(len(cells) == width for cells in split) and (
            delimiter == "\t" or all(c and not c[0].isspace() for cs in split for c in cs[1:])
        )


def read(file: TableFile) -> Rows:
    """The file's rows, all cells as text; those that short rows lack are empty.

    Raises ConfigError, naming the line, for rows with more cells than the header, and for quote
    marks that are never closed, or closed too early in a cell of several lines.
    """
    is_tsv = file.path.suffix.lower() == ".tsv"
    delimiter = file.table.delimiter or ("\t" if is_tsv else ",")
    quoting = file.table.quoting
    is_chosen = quoting == "auto" and delimiter == "\t"
    with _cells_of_any_length():
        is_quoted = _is_quoted(file) if is_chosen else quoting != "none"
        rows = _rows(file, delimiter, is_quoted=is_quoted)
    if is_chosen and not is_quoted:
        _warn_of_quotes(file, rows)
    if quoting != "none":
        _warn_of_single_quotes(file, rows)
    return rows


def _rows(file: TableFile, delimiter: str, *, is_quoted: bool) -> Rows:
    records = _records(file, delimiter, is_quoted=is_quoted)
    quotes = _QuoteCheck(file, delimiter)
    gathered = Gatherer(file.wanted)
    names: list[str] = []
    for record in records:
        if not names:
            names = _names(file, record.cells)
            if file.table.header:
                quotes.check(record, len(names))
                continue
        if is_quoted:
            quotes.check(record, len(names))
        if len(record.cells) > len(names):
            raise _too_wide(file, record, len(names))
        record.cells.extend([""] * (len(names) - len(record.cells)))
        gathered.add(dict(zip(names, record.cells, strict=True)))
    quotes.warn(len(gathered.rows))
    hint = (
        f"If the columns look glued together, {file.section}.delimiter is wrong; if they look like "
        f"a row, set {file.section}.header: false."
    )
    return file.rows(names, gathered.rows, hint)


def _records(file: TableFile, delimiter: str, *, is_quoted: bool) -> Iterator[Record]:
    """The file's records without blank ones."""
    lines: list[str] = []
    is_over = False

    def fed() -> Iterator[str]:
        nonlocal is_over
        for line in file.lines(newline=""):
            lines.append(line)
            yield line
        is_over = True
        yield "\n"  # a record of its own, unless a quote mark is open

    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    number = 1
    for cells in csv.reader(fed(), delimiter=delimiter, quoting=quoting):
        if cells and (len(cells) > 1 or "".join(lines).strip(" \t\r\n")):
            yield Record(number, cells, tuple(lines), is_closed=not is_over)
        number += len(lines)
        lines.clear()


def _names(file: TableFile, cells: Sequence[str]) -> list[str]:
    """Names of the columns by the first record; each is there once."""
    if not file.table.header:
        return [str(n) for n in range(len(cells))]
    names: list[str] = []
    for n, cell in enumerate(cells):
        name = cell or f"Unnamed: {n}"
        if name in names:
            if name in file.wanted:
                file.warn(f"the column {name!r} stands twice in the header; the first is read")
            count = 1
            while f"{name}.{count}" in names:
                count += 1
            name = f"{name}.{count}"
        names.append(name)
    return names


def _too_wide(file: TableFile, record: Record, width: int) -> Exception:
    first = "the header" if file.table.header else "the first row"
    return file.problem(
        f"line {record.line} has more cells than {first}: {len(record.cells)}, not {width}",
        f"Put cells that hold the delimiter in double quotes, or correct {file.section}.delimiter "
        f"or {file.section}.quoting.",
    )


class _QuoteCheck:
    """Looks after quote marks in records that were read with quoting."""

    def __init__(self, file: TableFile, delimiter: str) -> None:
        self._file = file
        self._delimiter = delimiter
        self._odd: list[int] = []
        self._joined: list[int] = []

    def check(self, record: Record, width: int) -> None:
        """Note what is odd. Raises ConfigError where rows have been lost for a quote mark."""
        if record.follows_the_standard(self._delimiter):
            if record.looks_like_several(self._delimiter, width):
                self._joined.append(record.line)
            return
        wrong = "a cell that goes on after its closing quote mark"
        if not record.is_closed:
            wrong = "an opening quote mark that is never closed"
        elif len(record.lines) == 1 and len(record.cells) == width:
            self._odd.append(record.line)
            return
        raise self._file.problem(
            f"the row that begins in line {record.line} has {wrong}",
            "Double the quote marks within cells that stand in quote marks; or, where quote marks "
            f"are ordinary characters, set {self._file.section}.quoting: none.",
        )

    def warn(self, count: int) -> None:
        key = f"{self._file.section}.quoting"
        if self._odd:
            self._file.warn(
                f"in {len(self._odd)} of {count} rows (the first in line {self._odd[0]}) a cell "
                "begins with a quote mark and goes on after the closing one; these two marks are "
                f"left out. If quote marks are ordinary characters, set {key}: none"
            )
        if self._joined:
            self._file.warn(
                f"in {len(self._joined)} of {count} rows (the first in line {self._joined[0]}) a "
                "cell in quote marks has several lines, each of which looks like a row of its own. "
                f"If quote marks are ordinary characters, set {key}: none"
            )


class _OptionalMarks:
    """Cells of tab-separated text that stand in quote marks and need none, in columns of which
    other texts have none."""

    def __init__(self, file: TableFile) -> None:
        self._file = file
        self._places: list[int] = []
        self._in_marks: Counter[int] = Counter()
        self._bare: set[int] = set()

    def count(self, record: Record) -> None:
        if not self._places:
            has_header, wanted = self._file.table.header, self._file.wanted
            self._places = [
                n
                for n, cell in enumerate(record.cells)
                if n in wanted or (has_header and cell in wanted)
            ]
            if has_header:
                return
        cells = "".join(record.lines).rstrip("\r\n").split("\t")
        for place in self._places:
            if len(cells[place]) > 1 and cells[place][0] == '"':
                self._in_marks[place] += 1
            elif place not in self._bare and not _is_number(cells[place] or "0"):
                self._bare.add(place)

    def warn(self) -> None:
        doubtful = sum(self._in_marks[place] for place in self._bare)
        if doubtful:
            key = f"{self._file.section}.quoting"
            self._file.warn(
                f"{counted(doubtful, 'cell')} in quote marks that need none, beside cells without "
                f"any: the marks are taken for the format's and left out; set {key} to none if "
                "they belong to the text, else to standard"
            )


def _is_number(cell: str) -> bool:
    """Whether programs that put all text in quote marks may leave the cell without."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_quoted(file: TableFile) -> bool:
    """Whether quote marks around cells of tab-separated text belong to the format, not the text.

    They do where all cells keep to it, all records are equally wide, and either some cell needs the
    marks, or those without them hold nothing for which a program would have written some. Where no
    cell needs them, and only some texts of a column have them, that is doubtful, and warned about.
    """
    width, is_needed, is_plain = 0, False, True
    optional = _OptionalMarks(file)
    for record in _records(file, "\t", is_quoted=True):
        width = width or len(record.cells)
        if (
            len(record.cells) != width
            or not record.follows_the_standard("\t")
            or record.looks_like_several("\t", width)
        ):
            return False
        written = "".join(record.lines)
        is_needed = is_needed or any(
            set('"\t\r\n') & set(cell) for cell in _QUOTED.findall(written)
        )
        is_plain = is_plain and not set(',"') & set(_QUOTED.sub("", written))
        if not is_needed and is_plain:
            optional.count(record)
    if is_plain and not is_needed:
        optional.warn()
    return is_needed or is_plain


def _warn_of_quotes(file: TableFile, rows: Rows) -> None:
    quoted = sum(
        any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in row.values())
        for row in rows.rows
    )
    if quoted:
        file.warn(
            f"in {quoted} of {len(rows.rows)} rows a cell begins and ends with a quote mark; these "
            "are kept as a part of the text, as the file as a whole does not look quoted. "
            f"Set {file.section}.quoting to none if that is right, else to standard"
        )


def _warn_of_single_quotes(file: TableFile, rows: Rows) -> None:
    for column in rows.rows[0] if rows.rows else ():
        cells = [row[column] for row in rows.rows if row[column]]
        if len(cells) > 1 and all(len(c) > 1 and c[0] == c[-1] == "'" for c in cells):
            file.warn(
                f"each cell of column {column!r} stands in single quote marks, which are kept as a "
                f"part of the text; only double ones are understood. Set {file.section}.quoting: "
                "none if that is right"
            )


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """The limit is the csv module's, not a reader's."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
