"""What a contest says: mean regrets, and whether adaptive rungs kept within their bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scores import Floats, mean_table

RANDOM = "random search"
FIXED = "CoralX fixed"
ADAPTIVE = "CoralX adaptive"

BOUNDS = {RANDOM: 1.3, FIXED: 1.1}
"""The greatest ratio of adaptive rungs' regret to another's: random search's everywhere, that of
fixed rungs where rungs rank truly."""

JUDGED = (20.0, 40.0)
"""Budgets at which the ratios are taken, in full trainings."""

SAMPLES = 2000
NOTHING = 1e-12
"""A regret that is 0 but for rounding."""


@dataclass(frozen=True)
class Contest:
    """The scores on one family: by method, shape (seeds, budgets); NaN where a budget is for all of
    the table."""

    name: str
    part: str
    ranks_truly: bool
    scores: Mapping[str, Floats]


def method_table(contest: Contest, budgets: Sequence[float]) -> str:
    """Mean regrets with 95 % intervals, in Markdown."""
    return mean_table(contest.scores, budgets).replace("nan ± nan", "-")


def verdict_table(contests: Sequence[Contest], budgets: Sequence[float]) -> str:
    """For each family the ratio of mean regrets with its 95 % interval, and whether it is within
    bounds, in Markdown. Without adaptive rungs among the methods, that of fixed rungs."""
    judged = ADAPTIVE if any(ADAPTIVE in c.scores for c in contests) else FIXED
    places = [list(budgets).index(budget) for budget in JUDGED]
    head = ["family", "part"]
    head += [f"to {other}'s at {b:g}" for other in BOUNDS for b in JUDGED]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for contest in contests:
        cells = [_cell(contest, judged, other, place) for other in BOUNDS for place in places]
        lines.append(f"| {contest.name} | {contest.part} | {' | '.join(cells)} |")
    return "\n".join([f"Ratios of the regret of {judged}, with 95 % intervals:", "", *lines])


def _cell(contest: Contest, judged: str, other: str, place: int) -> str:
    scores = contest.scores
    if other == judged or not {other, judged} <= scores.keys():
        return ""
    if other == FIXED and not contest.ranks_truly:
        return "-"
    mine, theirs = (scores[name][:, place] for name in (judged, other))
    if np.isnan(theirs).any():
        return "-"
    ratio, low, high = ratio_of(mine, theirs)
    is_within = ratio <= BOUNDS[other]
    return f"{ratio:.2f} ({low:.2f} to {high:.2f}){'' if is_within else ' **over**'}"


def ratio_of(mine: Floats, theirs: Floats) -> tuple[float, float, float]:
    """The ratio of two methods' mean regrets under the same seeds, with its 95 % interval from
    seeds drawn again (percentile bootstrap). 1 where neither has any, infinite where only the
    first has."""
    drawn = np.random.default_rng(0).integers(len(mine), size=(SAMPLES, len(mine)))
    ratios = [_ratio(a, b) for a, b in zip(mine[drawn].mean(1), theirs[drawn].mean(1), strict=True)]
    low, high = np.quantile(ratios, (0.025, 0.975), method="nearest")
    return _ratio(mine.mean(), theirs.mean()), float(low), float(high)


def _ratio(mine: float, theirs: float) -> float:
    if theirs > NOTHING:
        return float(mine / theirs)
    return 1.0 if mine <= NOTHING else float("inf")
