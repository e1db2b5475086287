"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts: `1 row`, `1,200 rows`. `plural` where it is not formed by s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def left_out(number: int, what: str, noun: str = "row") -> str:
    """`1 row without a text was left out`, `3 rows without a text were left out`."""
    return f"{counted(number, noun)} {what} {'was' if number == 1 else 'were'} left out"
