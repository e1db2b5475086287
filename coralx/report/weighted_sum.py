"""One number for each member of a front, if the user wants one. It decides nothing in the search.

The score is the weighted sum of normalised objectives (Marler and Arora 2010, "The weighted sum
method for multi-objective optimization: new insights"):

    score = sum of w_i n_i / sum of w_i,    n_i = (worst_i - f_i) / (worst_i - best_i)

where f_i is a member's figure, to be minimised, and best_i and worst_i are the front's: n_i is 1
for the best member and 0 for the worst, and 1 for all where all are equal. So a score, 0 to 1, can
be compared with the others of its front only. Measurements within their spread of each other
are equal, as in the search. A member that lacks a figure of positive weight has no score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coralx.config.evolution import LARGEST_WEIGHT, Objective, full_weights
from coralx.config.metric_catalogue import SPREAD, metric_entry
from coralx.errors import UsageError
from coralx.search.pareto import Points, as_minimised
from coralx.text import did_you_mean

LISTED = 6
"""Members that the terminal names; the rest is counted."""

Members = Sequence[Mapping[str, Any]]
Objectives = Sequence[Mapping[str, Any]]
Weights = Mapping[str, float]


def weighted(members: Members, objectives: Objectives, weights: Weights) -> dict[str, Any]:
    """The `weighted` part of a report: the weight of each objective, and the members' scores, best
    first, those without one (None) last; equal ones as on the front."""
    listed = [
        {"genome": member["genome"], "score": score}
        for member, score in zip(members, scores(members, objectives, weights), strict=True)
    ]
    listed.sort(key=lambda row: -1.0 if row["score"] is None else row["score"], reverse=True)
    return {"weights": dict(weights), "scores": listed}


def scores(members: Members, objectives: Objectives, weights: Weights) -> list[float | None]:
    """Each member's score; weights by metric, finite, none negative, one at least positive."""
    if not members:
        return []
    counted = [o for o in objectives if weights.get(o["metric"], 0.0) > 0.0]
    figures: list[dict[str, float | None]] = [{} for _ in members]
    for objective in counted:
        for own, measured in zip(figures, _figures(members, objective["metric"]), strict=True):
            own.update(measured)
    natural = [Objective(metric=o["metric"], direction=o["direction"]) for o in counted]
    points = as_minimised(figures, natural)
    normalised = np.column_stack([_normalised(column) for column in points.T])
    counting = [weights[o["metric"]] for o in counted]
    return [_weighted_mean(row, counting) for row in normalised]


def _weighted_mean(row: Points, weights: Sequence[float]) -> float | None:
    """Of a member's normalised figures; None where it lacks one."""
    if np.isnan(row).any():
        return None
    weighted_figures = [w * n for w, n in zip(weights, row.tolist(), strict=True)]
    return math.fsum(weighted_figures) / math.fsum(weights)


def _figures(members: Members, metric: str) -> list[dict[str, float | None]]:
    """Each member's figure and, of what is measured, its spread: of the test split, and of
    validation where one of them has none there, as two splits do not compare."""
    test = [(member["test"] or {}).get(metric) or {} for member in members]
    if any(figure.get("value") is None for figure in test):
        validation = [member["validation"] for member in members]
        spread = metric + SPREAD
        return [{metric: v.get(metric), spread: v.get(spread)} for v in validation]
    if metric_entry(metric).source != "measurement":
        return [{metric: figure["value"]} for figure in test]
    return [
        {metric: figure["value"], metric + SPREAD: (figure["high"] or 0) - (figure["low"] or 0)}
        for figure in test
    ]


def _normalised(column: Points) -> Points:
    """Figures to be minimised, shape (members,), as 1 (the best) to 0; NaN stays NaN."""
    size = np.nanmax(np.abs(column), initial=0.0)
    scaled = column / size if size > 0 else column  # whatever the figures, no difference overflows
    worst, best = np.fmax.reduce(scaled), np.fmin.reduce(scaled)
    if not worst > best:
        return np.where(np.isnan(column), np.nan, 1.0)
    result: Points = (worst - scaled) / (worst - best)
    return result


def parse_weights(text: str, metrics: Sequence[str]) -> dict[str, float]:
    """`auroc=2,memory=0.5` as a weight for each of the metrics of a run, those left out as in a
    config. Raises UsageError for anything else."""
    given: dict[str, float | None] = dict.fromkeys(metrics)
    for part in text.split(","):
        name, sign, number = (piece.strip() for piece in part.partition("="))
        if not name or not sign:
            raise UsageError(
                f"--weights {text!r}: {part.strip()!r} is not of the form METRIC=WEIGHT",
                f"For example: --weights {metrics[0]}=2. The run's objectives: "
                f"{', '.join(metrics)}.",
            )
        if name not in given:
            raise UsageError(
                f"--weights: {name!r} is not an objective of this run{did_you_mean(name, metrics)}",
                f"Its objectives: {', '.join(metrics)}.",
            )
        if given[name] is not None:
            raise UsageError(f"--weights: {name} is given twice", "Give each objective once.")
        given[name] = _weight(name, number)
    full = full_weights(given)
    if full is None or not any(full.values()):
        raise UsageError("--weights: all weights are 0", "Give at least one objective more than 0.")
    return full


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0.0 <= weight <= LARGEST_WEIGHT:
        raise UsageError(
            f"--weights: {text!r} is not a weight for {name}",
            f"A weight is a number from 0 to {LARGEST_WEIGHT:,.0f}.",
        )
    return weight


def weighted_lines(report: Mapping[str, Any]) -> list[str]:
    """For a terminal: the scores, best first."""
    weighted_sum = report["weighted"]
    if weighted_sum is None or not weighted_sum["scores"]:
        return []
    weights = ", ".join(f"{name} {weight:g}" for name, weight in weighted_sum["weights"].items())
    scored = [row for row in weighted_sum["scores"] if row["score"] is not None]
    named = [f"{row['genome']} {row['score']:.2f}" for row in scored[:LISTED]]
    if len(scored) > LISTED:
        named.append(f"and {len(scored) - LISTED} more")
    lacking = [row["genome"] for row in weighted_sum["scores"] if row["score"] is None]
    listed = ", ".join(named) or "no member has all its figures"
    if scored and lacking:
        listed += f"; not scored, a figure is missing: {', '.join(lacking)}"
    return [f"By the weighted sum ({weights}): {listed}"]
