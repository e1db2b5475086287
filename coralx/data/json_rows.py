"""Rows of JSON: one object a line, or a list of objects, whatever the file is called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from coralx.data.tables import Gatherer, TableFile, TableRows, WrittenNumber
from coralx.text import shown

KINDS = {str: "a string", WrittenNumber: "a number", list: "a list"}
ROW = 'A row is an object, each cell after the name of its column: {"text": "...", ...}.'
WHITE_SPACE = " \t\r\n"

Values = Iterator[tuple[str, Any]]
"""Values, each with the words that say where it stands, such as `line 2`."""


class _Invalid(Exception):
    """What is wrong with the JSON, and where; with a hint what to do about it."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class _NoRow(_Invalid):
    """A value that is valid, but no row."""

    def __init__(self, place: str, value: Any) -> None:
        super().__init__(f"{place} {_no_row(value)}", ROW)


class _DuplicateKey(ValueError):
    """A key that stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return cells


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=WrittenNumber,
    parse_int=WrittenNumber,
    parse_constant=WrittenNumber,
)


def read(file: TableFile) -> TableRows:
    """The file's rows; numbers keep the digits they were written in. Raises ConfigError, naming
    the line or the element, where it holds anything but rows."""
    opening = next((line.lstrip()[:1] for line in file.lines() if line.strip()), "")
    # Neither name nor beginning tells for sure: a list may stand in one line, and an object in
    # several. So both ways are tried, the likelier first.
    ways = (_in_document, _by_line) if opening == "[" else (_by_line, _in_document)
    failures = []
    for values in ways:
        try:
            return _gathered(file, values(file), is_list=opening == "[")
        except _Invalid as error:
            failures.append(error)
    # A file that is meant to have a row a line has its fault in a line; others, as a document.
    by_line = failures[ways.index(_by_line)]
    signs = (opening != "[", isinstance(by_line, _NoRow))
    is_lines = all(signs) if file.path.suffix.lower() == ".json" else any(signs)
    failure = by_line if is_lines else failures[ways.index(_in_document)]
    raise file.problem(str(failure), failure.hint)


def _gathered(file: TableFile, values: Values, *, is_list: bool = False) -> TableRows:
    first = list(islice(values, 2))
    # A single object may be the only row, or hold all of them.
    if len(first) == 1 and isinstance(first[0][1], dict) and not is_list:
        first = [("", row) for row in _rows_of(file, first[0][1])]
    gathered = Gatherer(file.requested)
    for place, value in chain(first, values):
        if not isinstance(value, dict):
            raise _NoRow(place, value)
        gathered.add(value)
    return file.rows(gathered.columns, gathered.rows)


def _by_line(file: TableFile) -> Values:
    for number, line in enumerate(file.lines(), 1):
        # The list reads the line to its end first: a line that is no JSON has no rows.
        for value in list(_sequence(line, f"line {number}", number)):
            yield f"line {number}", value


def _no_row(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return f"is {json.dumps(value)}, where a row is needed"
    return f"is {KINDS[type(value)]}, where a row is needed: {shown(value)}"


def _in_document(file: TableFile) -> Values:
    """The elements of the file's one list; or, where it opens with none, its values."""
    text = "".join(file.lines()).rstrip()
    at = _past_space(text, 0)
    is_list = text.startswith("[", at)
    values = _elements(text, at + 1) if is_list else _sequence(text, "the file", 1)
    for number, value in enumerate(values, 1):
        if not is_list and not isinstance(value, dict):
            raise _NoRow(f"value {number}", value)
        yield f"element {number}", value


def _elements(text: str, at: int) -> Iterator[Any]:
    """Of the list that opens just before `at`."""
    at = _past_space(text, at)
    number, is_closed = 0, text.startswith("]", at)
    at += is_closed
    while not is_closed:
        number += 1
        value, at = _decoded(text, at, f"element {number}", 1)
        yield value
        if not text.startswith((",", "]"), at):
            error = json.JSONDecodeError("Expecting ',' or ']'", text, at)
            raise _malformed(error, text, 1)
        is_closed = text[at] == "]"
        at = _past_space(text, at + 1)
    if at < len(text):
        raise _Invalid(
            f"something follows the end of the list: {shown(text[at : at + 40])}",
            "A file holds one list of rows, or a row a line without brackets around them.",
        )


def _sequence(text: str, place: str, line: int) -> Iterator[Any]:
    """Values one after another."""
    at = _past_space(text, 0)
    while at < len(text):
        value, at = _decoded(text, at, place, line)
        yield value


def _decoded(text: str, at: int, place: str, line: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where the next thing begins; `line` is the text's first.
    Raises _Invalid."""
    try:
        value, end = _DECODER.raw_decode(text, at)
        # Characters beyond \uffff are written in two halves. One half alone is valid JSON, but no
        # text: only encoding it shows that.
        if "\\ud" in text[at:end] or "\\uD" in text[at:end]:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise _malformed(error, text, line) from None
    except _DuplicateKey as error:
        raise _Invalid(f"{place}: the key {shown(str(error))} stands twice in one object") from None
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise _Invalid(f"{place}: {half} is half a character, which is no text") from None
    except RecursionError:
        raise _Invalid(f"{place}: lists or objects are nested too deeply") from None
    return value, _past_space(text, end)


def _malformed(error: json.JSONDecodeError, text: str, line: int) -> _Invalid:
    is_cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
    what = error.msg.removesuffix(" at").removesuffix(" starting")
    return _Invalid(
        f"line {line + error.lineno - 1}, character {error.colno}: not valid JSON: {what}",
        "The file seems to be cut off there: was it written and copied completely?"
        if is_cut
        else "Correct it, or write the file with a program: it gets quotes and commas right.",
    )


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in WHITE_SPACE:
        at += 1
    return at


def _rows_of(file: TableFile, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a file that is one object: columns by name, as lists or as pandas writes them;
    one list of rows under some key; or itself the only row."""
    cells = list(content.values())
    # Only keys that the config names as columns make an object a table or a row of one.
    is_table = any(name in content for name in file.requested)
    is_numbered = any(isinstance(column, int) for column in file.requested)
    if (is_table or is_numbered) and all(
        isinstance(cell, list) and not _has_objects(cell) for cell in cells
    ):
        return _transposed(file, content)
    # As pandas' to_json writes by default: {"text": {"0": "...", "1": "..."}, ...}.
    if is_table and all(isinstance(cell, dict) and [*cell] == [*cells[0]] for cell in cells):
        return _transposed(file, {name: list(cell.values()) for name, cell in content.items()})
    tables = [key for key, cell in content.items() if isinstance(cell, list) and _has_objects(cell)]
    if is_table or not any(isinstance(cell, list | dict) for cell in cells):
        return [content]
    if len(tables) == 1:
        rows: list[dict[str, Any]] = content[tables[0]]
        return rows
    keys = ", ".join(shown(key) for key in list(content)[:8])
    raise file.problem(
        f"is one object with the keys {keys}{', ...' if len(content) > 8 else ''}, not a list of "
        "rows",
        "Save a list of objects, or an object a line (pandas: to_json(path, orient='records')).",
    )


def _has_objects(cell: list[Any]) -> bool:
    return any(isinstance(item, dict) for item in cell)


def _transposed(file: TableFile, columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{shown(name)} {length}" for name, length in list(lengths.items())[:8])
        raise file.problem(f"its columns have different lengths: {listing}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
