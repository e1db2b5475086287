"""What scoring an adapter costs against training: in rows, never by the clock, so that a run that
is repeated or resumed derives as much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

SCORED_ROW = Fraction(2, 5)
"""What a row costs that is only scored, as a share of one that is trained on."""

GENERATED_TOKEN = Fraction(1, 50)
"""What a token of an answer costs, which is a pass through the model by itself."""

ASSUMED_VALIDATION = Fraction(1, 5)
"""The validation split as a share of the training rows, where nobody knows how large it is: in
simulations."""

GROUP_ROWS = 64
"""Training rows by which a group of modules is judged."""

ASSUMED_GROUPS = 12
"""How many a base has of which nothing is known: in simulations."""

HALVED = ("attacks", "clean hold-out")
"""Rows of which one half serves the search, the other the final measurement."""


def look_cost(rows: Mapping[str, int], tokens_per_attack: int = 0) -> Fraction:
    """The cost of scoring an adapter on all that the last stage scores, in trained rows. `rows` are
    a run's, by kind; each attack is answered by so many tokens."""
    scored = Fraction(rows.get("validation", 0)) or ASSUMED_VALIDATION * rows["train"]
    scored += sum(Fraction(rows.get(kind, 0), 2) for kind in HALVED)
    tokens = Fraction(rows.get("attacks", 0), 2) * tokens_per_attack
    return max(SCORED_ROW * scored + GENERATED_TOKEN * tokens, Fraction(1))


def trial_cost(linear_layers: Iterable[str], layers: int, look: Fraction) -> Fraction:
    """The cost of finding the next group of modules that is worth least, in looks of that cost:
    each kind of the base's linear layers, and each block, is tried on some training rows."""
    kinds = {name.rpartition(".")[2] for name in linear_layers}
    groups = len(kinds) + layers if kinds else ASSUMED_GROUPS
    return SCORED_ROW * GROUP_ROWS * groups / look


def affordable_looks(share: Fraction, trained_rows: int, cost: Fraction) -> int:
    """How many looks the training of so many rows (a row counts as often as it was passed) pays for
    in all."""
    return math.floor(share * trained_rows / cost)


def round_size(looks: int) -> int:
    """How many of so many looks are taken at once. Few, for each says what is worth the next; more
    where there are many, so that more workers have something to do."""
    return max(2, min(8, looks // 4))
