"""Text that people read: counts and sizes in words, lists, the nearest known name, and text from
elsewhere (data, file names, libraries) made safe to print."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but for tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029\ud800-\udfff]"  # line separators; halves of a character, which cannot be encoded
)

LONGEST_VALUE = 120
"""Characters of a value that a message echoes."""

LONGEST_NAME = 40
"""Characters of each name in a list."""

MOST_LISTED = 8
"""Names in a list."""

GIB, MIB = 1 << 30, 1 << 20


def printable(text: str) -> str:
    r"""`text` with its control characters visible: an escape becomes the four characters \x1b.

    Tabs and line feeds stay.
    """
    return _HARMFUL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shortened(text: str, longest: int) -> str:
    """The first `longest` characters of `text`, and how many more there are."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]}... ({counted(more, 'character')} more)"


def shown(value: Any) -> str:
    """A value as Python writes it, short enough to be echoed."""
    if isinstance(value, str) and len(value) > LONGEST_VALUE:  # cut inside the quotes
        more = counted(len(value) - LONGEST_VALUE, "character")
        return f"{value[:LONGEST_VALUE]!r}... ({more} more)"
    try:
        return shortened(repr(value), LONGEST_VALUE)
    except ValueError:  # Python refuses to write an integer of thousands of digits
        return "a number of thousands of digits"


def brief(name: str) -> str:
    """A name in quotes, as Python writes it, cut where it is long."""
    return repr(name) if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]!r}..."


def enumerated(items: Iterable[str]) -> str:
    """The first of some items, and how many more there are."""
    items = list(items)
    more = len(items) - MOST_LISTED
    return ", ".join(items[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def listed(names: Iterable[str]) -> str:
    """The first of some names in quotes, and how many more there are."""
    return enumerated(brief(name) for name in names)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts: `1 row`, `1,200 rows`. `plural`: where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def left_out(number: int, what: str, noun: str = "row") -> str:
    """`1 row without a text was left out`, `3 rows without a text were left out`."""
    return f"{counted(number, noun)} {what} {'was' if number == 1 else 'were'} left out"


def gib(size: int) -> str:
    """Bytes as people read them: `1.5 GiB`, `37.0 MiB`."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
