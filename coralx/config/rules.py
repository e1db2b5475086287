"""Stop rules as text: `metric op number`, parsed and never evaluated."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from coralx.config.metrics import check_metric

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_PATTERN = re.compile(r"^\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*([-+]?[0-9.][0-9.eE+-]*)\s*$")


@dataclass(frozen=True)
class ParsedRule:
    """`metric comparison threshold`, such as gradient_norm > 5."""

    metric: str
    comparison: str
    threshold: float

    def holds_for(self, value: float) -> bool:
        """Whether the rule's condition is met, that is, whether the genome is to be stopped."""
        return OPERATORS[self.comparison](value, self.threshold)


def parse_rule(text: str) -> ParsedRule:
    """Read `metric op number`; raises ValueError saying which part is wrong."""
    match = _PATTERN.match(text)
    if match is None:
        raise ValueError("a stop rule reads `metric op number`, such as `gradient_norm > 5.0`")
    metric, comparison, number = match.groups()
    check_metric(metric)
    try:
        threshold = float(number)
    except ValueError:
        raise ValueError(f"{number!r} is not a number") from None
    if not math.isfinite(threshold):
        raise ValueError(f"{number!r} is not a finite number")
    return ParsedRule(metric, comparison, threshold)


def check_rule(text: object) -> object:
    """Pass a readable rule through; raises ValueError otherwise."""
    if isinstance(text, str):
        parse_rule(text)
    return text
