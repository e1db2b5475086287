"""What scoring an adapter costs against training: in rows, never by the clock, so that a run that
is repeated or resumed derives as much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from coralx.config.metric_catalogue import TaskKind

SCORED_ROW: Mapping[TaskKind, Fraction] = {
    "sequence-classification": Fraction(7, 20),
    "label-tokens": Fraction(1, 2),
    "sft": Fraction(1, 2),
}
"""What a row costs that is only scored, as a share of one that is trained on. Measured on a CPU:
0.34 to 0.36 (MiniLM, 33 tokens a row), 0.46 to 0.49 (SmolLM2, 42 tokens a row)."""

FULL_PRECISION = Fraction(5, 2)
"""How many times as much it costs, and a token, where training runs in bf16 and scores are computed
in full precision. Measured: a step takes 2.4 times as long in fp32 (MiniLM on a CPU)."""

GENERATED_TOKEN = Fraction(1, 30)
"""What a token of an answer costs, which is a pass through the model by itself (SmolLM2: 0.03)."""

ASSUMED_VALIDATION = Fraction(1, 5)
"""The validation split as a share of the training rows, where nobody knows how large it is: in
simulations."""

JUDGED_ROW = Fraction(9, 20)
"""What a training row costs by which a group of modules is judged, which is in no large batch."""

GROUP_ROWS = 64
"""Training rows by which a group of modules is judged. All groups are judged by the same ones, so
that few are enough to tell them apart."""

JUDGED_AGAIN = 2
"""How many groups are judged for each that is found after the first, about."""

ASSUMED_GROUPS = 12
"""How many a base has of which nothing is known: in simulations."""

HALVED = ("attacks", "clean hold-out")
"""Rows of which one half serves the search, the other the final measurement."""


def look_cost(
    task: TaskKind,
    rows: Mapping[str, int],
    tokens_per_attack: int = 0,
    *,
    scores_in_full: bool = False,
) -> Fraction:
    """The cost of scoring an adapter on all that the last stage scores, in trained rows. `rows` are
    a run's, by kind; each attack is answered by so many tokens. `scores_in_full`: in a higher
    precision than training."""
    scored = _validation(rows) + sum(Fraction(rows.get(kind, 0), 2) for kind in HALVED)
    tokens = Fraction(rows.get("attacks", 0), 2) * tokens_per_attack
    cost = SCORED_ROW[task] * scored + GENERATED_TOKEN * tokens
    return max(cost * (FULL_PRECISION if scores_in_full else 1), Fraction(1))


def sample_cost(
    task: TaskKind, rows: Mapping[str, int], limit: int, *, scores_in_full: bool = False
) -> Fraction:
    """The cost, in trained rows, of scoring so many rows of the validation split at most, as stages
    before the last do."""
    scored = min(Fraction(limit), _validation(rows))
    return SCORED_ROW[task] * scored * (FULL_PRECISION if scores_in_full else 1)


def _validation(rows: Mapping[str, int]) -> Fraction:
    """The rows of the validation split."""
    return Fraction(rows.get("validation", 0)) or ASSUMED_VALIDATION * rows["train"]


def group_costs(groups: int, look: Fraction) -> tuple[Fraction, Fraction]:
    """The cost of finding which of so many groups of modules (0: nobody knows) is worth least, and
    of finding each further one, in looks that cost so much."""
    one = JUDGED_ROW * GROUP_ROWS / look
    whole = 1  # that with nothing left out, against which each is judged
    return (whole + (groups or ASSUMED_GROUPS)) * one, JUDGED_AGAIN * one


def affordable_looks(share: Fraction, spent: Fraction, cost: Fraction) -> int:
    """How many looks stages that cost so much, in trained rows, pay for in all."""
    return math.floor(share * spent / cost)


def round_size(looks: int) -> int:
    """How many of so many looks are taken at once. Few, for each says what is worth the next; more
    where there are many, so that more workers have something to do."""
    return max(2, min(8, looks // 4))
