"""Text that fits into so many columns and can still be read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.cells import cell_len, chop_cells, set_cell_size

from coralx.text import printable

INDENT = "  "
"""Before each continuation of a line."""

_WITH_UNIT = r"[^\s/]*\d (?:ms|s|min|h|%|[KMG]iB)(?!\w)[^\s/]*"
_UNBROKEN = re.compile(rf"\s+|{_WITH_UNIT}(?: {_WITH_UNIT})*/*|[^\s/]+/*|/+")
"""What is not broken: words, parts of paths, and figures with their units (`3 min 08 s`)."""


def folded(line: str, width: int) -> list[str]:
    """`line` as several, none wider than `width`, broken between words or behind a slash, not
    between a figure and its unit; within a word only where it has no room on a line of its own."""
    text = printable(line)
    indent = " " * (len(text) - len(text.lstrip(" "))) + INDENT
    if width < 2 * len(indent):
        indent = ""
    lines = [""]
    for piece in _UNBROKEN.findall(text):
        if cell_len(lines[-1] + piece.rstrip()) <= width:
            lines[-1] += piece
            continue
        if not lines[-1].strip():  # its first word is wider than a line
            lines.pop()
        lines += [indent + part.lstrip() for part in chop_cells(piece, width - len(indent))]
    return [folded_line.rstrip() for folded_line in lines]


def packed(parts: Iterable[str], width: int, between: str = " · ") -> list[str]:
    """`parts` on as few lines as they fit on, none of them broken unless it is wider alone."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1] + between + part) <= width:
            lines[-1] += between + part
        else:
            lines.append(part)
    return [piece for line in lines for piece in folded(line, width)]


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, without its end if it is longer."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def cut_in_the_middle(text: str, width: int) -> str:
    """`text` in at most `width` columns, with its beginning and its end: names differ in both."""
    if cell_len(text) <= width:
        return text
    if width < 3:
        return cut(text, width)
    end = text[-((width - 1) // 2) :]
    # counted in characters so far: a wide one takes two columns
    while cell_len(end) > (width - 1) // 2:
        end = end[1:]
    return set_cell_size(text, width - 1 - cell_len(end)) + "…" + end
