"""Stop rules and constraints: conditions `metric op number`, read by a pattern and never evaluated.

A stop rule says when a genome is taken out, a constraint which condition it must meet.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from coralx.config.metric_catalogue import check_metric
from coralx.text import shown

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_METRIC = r"[A-Za-z_][\w.]*(?::[A-Za-z_]\w*)?(?:@[A-Za-z0-9._-]*)?"
_PATTERN = re.compile(rf"^\s*({_METRIC})\s*(>=|<=|>|<)\s*([-+]?[0-9.][0-9.eE+-]*)\s*$")


@dataclass(frozen=True)
class Condition:
    """`metric comparison threshold`, such as `gradient_norm > 50`."""

    metric: str
    comparison: str
    threshold: float

    def holds_for(self, value: float) -> bool:
        """Whether a value meets the condition: then a stop rule ends the genome, or a constraint
        is kept."""
        return OPERATORS[self.comparison](value, self.threshold)


def parse_rule(text: str) -> Condition:
    """Read a stop rule, `metric op number`; raises ValueError saying which part is wrong."""
    return _parse(text, "a stop rule", "gradient_norm > 50.0")


def parse_constraint(text: str) -> Condition:
    """Read a constraint, `metric op number`; raises ValueError saying which part is wrong."""
    return _parse(text, "a constraint", "trainable_parameters <= 500000")


def _parse(text: str, kind: str, example: str) -> Condition:
    match = _PATTERN.match(text)
    if match is None:
        raise ValueError(f"{kind} must be `metric op number`, such as `{example}`")
    metric, comparison, number = match.groups()
    check_metric(metric)
    try:
        threshold = float(number)
    except ValueError:
        raise ValueError(f"{shown(number)} is not a number") from None
    if not math.isfinite(threshold):
        raise ValueError(f"{shown(number)} is not a finite number")
    return Condition(metric, comparison, threshold)


def check_rule(text: object) -> object:
    """Pass a readable rule through; raises ValueError otherwise."""
    if isinstance(text, str):
        parse_rule(text)
    return text


def check_constraint(text: object) -> object:
    """Pass a readable constraint through; raises ValueError otherwise."""
    if isinstance(text, str):
        parse_constraint(text)
    return text


def refuse_contradictions(constraints: Sequence[str]) -> None:
    """Raise ValueError where a constraint is listed twice, or no value can meet two of them."""
    for first, second in combinations(constraints, 2):
        one, other = parse_constraint(first), parse_constraint(second)
        if one == other:
            raise ValueError(f"`{second}` is listed twice")
        same_metric = one.metric == other.metric
        if same_metric and (_exclude_each_other(one, other) or _exclude_each_other(other, one)):
            raise ValueError(f"no value can meet both `{first}` and `{second}`")


def _exclude_each_other(lower: Condition, upper: Condition) -> bool:
    """Whether nothing lies between a lower and an upper bound; False for conditions that are not
    one of each, in this order."""
    if lower.comparison not in (">", ">=") or upper.comparison not in ("<", "<="):
        return False
    if lower.comparison == ">=" and upper.comparison == "<=":  # both can hold at the same number
        return lower.threshold > upper.threshold
    return lower.threshold >= upper.threshold
