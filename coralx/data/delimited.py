"""Rows of delimited text: csv, tsv, and whatever else stands between cells."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from coralx.data.tables import Gatherer, TableFile, TableRows
from coralx.text import counted

LONGEST_CELL = 2**31 - 1
"""Characters; the greatest limit that the csv module takes on every system. By default it refuses
cells of more than 131,072."""

_QUOTED = re.compile(r'(?:^|(?<=\t))"((?:[^"]|"")*)"(?=[\t\r\n]|$)')
"""A cell in quote marks, of tab-separated text."""


@dataclass(frozen=True)
class Record:
    """One record of delimited text, as the csv module reads it and as it is written."""

    line: int
    """The number of its first line, from 1."""

    cells: list[str]

    lines: Sequence[str]
    """The lines it is written in, with their line breaks."""

    is_closed: bool = True
    """False where the file ends within quote marks."""

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
        """Whether each of its lines could be a row of its own."""
        if width < 2 or len(self.lines) < 2:
            return False
        rows = [line.rstrip("\r\n").split(delimiter) for line in self.lines]
        if any(len(cells) != width for cells in rows):
            return False
        # Prose has commas, too, but at a line's end or before a space. No prose has tabs.
        later_cells = [cell for cells in rows for cell in cells[1:]]
        return delimiter == "\t" or all(cell and not cell[0].isspace() for cell in later_cells)


def read(file: TableFile) -> TableRows:
    """The file's rows, all cells as text; those that short rows lack are empty.

    Raises ConfigError, naming the line, for rows with more cells than the header, and for quote
    marks that are never closed, or closed too early in a cell of several lines.
    """
    is_tsv = file.path.suffix.lower() == ".tsv"
    delimiter = file.table.delimiter or ("\t" if is_tsv else ",")
    quoting = file.table.quoting
    # Tab-separated files come both ways: with csv's quoting, and with quote marks as plain text.
    is_guessed = quoting == "auto" and delimiter == "\t"
    with _cells_of_any_length():
        is_quoted = _is_quoted(file) if is_guessed else quoting != "none"
        rows = _rows(file, delimiter, is_quoted=is_quoted)
    if is_guessed and not is_quoted:
        _warn_of_quotes(file, rows)
    if quoting != "none":
        _warn_of_single_quotes(file, rows)
    return rows


def _rows(file: TableFile, delimiter: str, *, is_quoted: bool) -> TableRows:
    records = _records(file, delimiter, is_quoted=is_quoted)
    quotes = _QuoteCheck(file, delimiter)
    gathered = Gatherer(file.requested)
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
    lines: list[str] = []  # those of the record that is being read
    is_over = False

    def fed() -> Iterator[str]:
        nonlocal is_over
        for line in file.lines(newline=""):
            lines.append(line)
            yield line
        is_over = True
        # A blank record of its own, which is left out; but where a quote mark is still open, it
        # goes to the last record, which is how that one is known not to be closed.
        yield "\n"

    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    number = 1
    for cells in csv.reader(fed(), delimiter=delimiter, quoting=quoting):
        # An empty line has no cells; one of white space alone has a single one.
        if cells and (len(cells) > 1 or "".join(lines).strip(" \t\r\n")):
            yield Record(number, cells, tuple(lines), is_closed=not is_over)
        number += len(lines)
        lines.clear()


def _names(file: TableFile, cells: Sequence[str]) -> list[str]:
    """Names of the columns by the first record, no two alike: pandas' names where the header has
    none, or the same one twice."""
    if not file.table.header:
        return [str(n) for n in range(len(cells))]
    names: list[str] = []
    for n, cell in enumerate(cells):
        name = cell or f"Unnamed: {n}"
        if name in names:
            if name in file.requested:
                file.warn(f"the header has the column {name!r} twice; the first is read")
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
    """Checks the quote marks in records that were read with quoting."""

    def __init__(self, file: TableFile, delimiter: str) -> None:
        self._file = file
        self._delimiter = delimiter
        self._unquoted: list[int] = []
        self._joined: list[int] = []

    def check(self, record: Record, width: int) -> None:
        """Note what is odd. Raises ConfigError where a quote mark has swallowed rows."""
        if record.follows_the_standard(self._delimiter):
            if record.looks_like_several(self._delimiter, width):
                self._joined.append(record.line)
            return
        wrong = "a cell that goes on after its closing quote mark"
        if not record.is_closed:
            wrong = "an opening quote mark that is never closed"
        elif len(record.lines) == 1 and len(record.cells) == width:
            # Such as `"No" is an answer`: no cell and no row is lost, only the two marks.
            self._unquoted.append(record.line)
            return
        raise self._file.problem(
            f"the row that begins in line {record.line} has {wrong}",
            "Double the quote marks within quoted cells; or, if quote marks are ordinary "
            f"characters, set {self._file.section}.quoting: none.",
        )

    def warn(self, count: int) -> None:
        """Warn of what was noted in a file of `count` rows."""
        key = f"{self._file.section}.quoting"
        if self._unquoted:
            self._file.warn(
                f"in {len(self._unquoted)} of {count} rows (the first in line {self._unquoted[0]}) "
                "a cell begins with a quote mark and goes on after the closing one; both marks are "
                f"left out. If quote marks are ordinary characters, set {key}: none"
            )
        if self._joined:
            self._file.warn(
                f"in {len(self._joined)} of {count} rows (the first in line {self._joined[0]}) a "
                "quoted cell has several lines, each of which looks like a row of its own. If "
                f"quote marks are ordinary characters, set {key}: none"
            )


class _OptionalMarks:
    """Quoted cells of tab-separated text that need no quoting, in columns where others have none:
    their marks may be the format's or the text's."""

    def __init__(self, file: TableFile) -> None:
        self._file = file
        self._columns: list[int] = []
        self._quoted: Counter[int] = Counter()
        self._with_bare_text: set[int] = set()

    def count(self, record: Record) -> None:
        """Look at the next record; in the first, at which columns are read."""
        if not self._columns:
            has_header, requested = self._file.table.header, self._file.requested
            self._columns = [
                n
                for n, cell in enumerate(record.cells)
                if n in requested or (has_header and cell in requested)
            ]
            if has_header:
                return
        cells = "".join(record.lines).rstrip("\r\n").split("\t")
        for column in self._columns:
            if len(cells[column]) > 1 and cells[column][0] == '"':
                self._quoted[column] += 1
            elif column not in self._with_bare_text and not _is_number(cells[column] or "0"):
                self._with_bare_text.add(column)

    def warn(self) -> None:
        doubtful = sum(self._quoted[column] for column in self._with_bare_text)
        if doubtful:
            key = f"{self._file.section}.quoting"
            self._file.warn(
                f"{counted(doubtful, 'cell')} in quote marks that need none, while others in the "
                "column have none: the marks are taken to be the format's and left out. Set "
                f"{key} to none if they belong to the text, else to standard"
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

    They do where every record is valid with quoting and all have the same number of cells, and
    either some cell needs its marks, or no cell without marks holds a comma or a quote mark, for
    which a program that quotes would have written some. If no cell needs them, and only some texts
    of a column have them, that is doubtful, and warned about.
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


def _warn_of_quotes(file: TableFile, rows: TableRows) -> None:
    quoted = 0
    for row in rows.rows:
        quoted += any(_is_within(cell, '"') for cell in row.values())
    if quoted:
        file.warn(
            f"in {quoted} of {len(rows.rows)} rows a cell begins and ends with a quote mark; these "
            "are kept as a part of the text, since the file does not look quoted as a whole. "
            f"Set {file.section}.quoting to none if that is right, else to standard"
        )


def _warn_of_single_quotes(file: TableFile, rows: TableRows) -> None:
    for column in rows.rows[0] if rows.rows else ():
        cells = [row[column] for row in rows.rows if row[column]]
        if len(cells) > 1 and all(_is_within(cell, "'") for cell in cells):
            file.warn(
                f"every cell of column {column!r} stands in single quote marks, which are kept as "
                f"a part of the text; only double ones are supported. Set {file.section}.quoting: "
                "none if that is right"
            )


def _is_within(cell: str, mark: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == mark


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Lifts the csv module's limit, which is one for the whole process."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
