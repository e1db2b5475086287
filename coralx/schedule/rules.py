"""Stop rules: which genomes a stage takes out, and which it has seen too little of to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coralx.config.metrics import CATALOGUE
from coralx.config.rules import ParsedRule
from coralx.records import StageResult

MIN_JUDGED_STEPS = 8
"""A rule needs this many of the stage's steps after warm-up."""


@dataclass(frozen=True)
class Breach:
    """A rule's condition is met: the genome is to be stopped."""

    rule: str
    value: float | None
    is_quality_floor: bool = False


def rule_text(rule: ParsedRule) -> str:
    """A rule as it is shown."""
    return f"{rule.metric} {rule.comparison} {rule.threshold:g}"


def _breach(rule: ParsedRule, result: StageResult) -> Breach | None:
    value = result.metrics.get(rule.metric)
    if value is None or not rule.holds_for(value):
        return None
    if rule.metric == "loss_slope" and result.loss_trend is not None:
        # The whole 95 % interval must lie beyond the threshold, not only the estimate.
        ends = (result.loss_trend.low, result.loss_trend.high)
        if not all(rule.holds_for(end) for end in ends):
            return None
    floor = CATALOGUE[rule.metric].source == "predictions"
    return Breach(rule_text(rule), value, is_quality_floor=floor)


@dataclass(frozen=True)
class Judgement:
    """`breaches` by genome id; `not_judged` had too few steps after warm-up."""

    breaches: dict[str, Breach]
    not_judged: tuple[str, ...]
    warnings: tuple[str, ...]


def judge(rules: Sequence[ParsedRule], results: Sequence[StageResult]) -> Judgement:
    """Apply a stage's rules to its results.

    A loss that is no finite number stops a genome under any rules. A quality floor which would
    stop every genome of the stage stops none: then the floor, not the genomes, is at fault.
    """
    breaches: dict[str, Breach] = {}
    not_judged = []
    sound = []
    for result in results:
        if result.divergence is not None:
            breaches[result.genome] = Breach(f"{result.divergence.quantity} is not finite", None)
            continue
        sound.append(result)
        if rules and result.judged_steps < MIN_JUDGED_STEPS:
            not_judged.append(result.genome)
            continue
        found = (_breach(rule, result) for rule in rules)
        breach = next((breach for breach in found if breach is not None), None)
        if breach is not None:
            breaches[result.genome] = breach
    warnings = []
    floored = [r.genome for r in sound if r.genome in breaches]
    if sound and len(floored) == len(sound):
        too_strict = [g for g in floored if breaches[g].is_quality_floor]
        if too_strict:
            rules_named = " and ".join(sorted({breaches[g].rule for g in too_strict}))
            warnings.append(
                f"the floor `{rules_named}` is too strict for this stage: it would stop every "
                "genome, so it stops none and promotion decides"
            )
            for genome in too_strict:
                del breaches[genome]
    return Judgement(breaches, tuple(not_judged), tuple(warnings))
