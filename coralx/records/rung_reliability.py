"""How well a stage's figures ranked what came later."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RungReliability:
    """What was known of a stage's reliability when it was decided, and what was made of it."""

    pairs: int
    """Genomes with figures both of the stage and of the last one."""
    controls: int
    """How many of them were of the control group: they got there whatever their rank."""
    agreement: float | None
    """Rank correlation of the stage's order with the final one, in [-1, 1]; None: not known."""
    low: float | None
    high: float | None
    """Of its 95 % interval."""
    best_held: int | None
    """How many of the best at the end stood in the stage's better half."""
    best: int | None
    """Of how many."""
    ranked_by: str
    """What the stage ranked by: "objectives", a metric's name, or "nothing"."""
    survival_rate: str
    """The share that went on, an exact fraction, as in "7/20"."""
