"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts: `1 row`, `1,200 rows`. `plural` where it is not formed by s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
