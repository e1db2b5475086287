"""What is expected of a gene before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prior:
    """Where a gene's good values are expected: a normal distribution on the gene's scale, truncated
    to its range."""

    center: float
    """In the gene's own unit."""
    spread: float
    """The standard deviation: in decades for a range on a log scale, in the gene's own unit for a
    linear one, in steps along sorted choices."""
    source: str
    """Where it comes from, in words."""
