"""Stop rules: which genomes a stage takes out, and which it has seen too little of to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coralx.config.conditions import Condition
from coralx.config.metric_catalogue import described
from coralx.records.results import StageResult
from coralx.schedule.stages import FEWEST_STEPS, Stage


@dataclass(frozen=True)
class Breach:
    """A rule's condition is met: the genome is to be stopped."""

    rule: str
    value: float | None


@dataclass(frozen=True)
class Judgement:
    """`breaches` by genome id; `not_judged` had too few steps for at least one rule."""

    breaches: dict[str, Breach]
    not_judged: tuple[str, ...]
    warnings: tuple[str, ...]


def rule_text(rule: Condition) -> str:
    """A rule as it is shown."""
    return f"{rule.metric} {rule.comparison} {rule.threshold!r}"


def judged_from(first_step: int, last_step: int, warmup_steps: int) -> int:
    """The step from which on a stage's losses make its trend: the first after warm-up, where it
    takes FEWEST_STEPS from there; else its own first. Under a schedule whose first stage ends
    within warm-up, nothing could be said of that stage otherwise."""
    after = max(first_step, warmup_steps)
    return after if last_step - after >= FEWEST_STEPS else first_step


def judgeable(stage: Stage, result: StageResult) -> bool:
    """Whether a result has steps enough for all of its stage's rules."""
    return all(_is_judged(stage, rule, result) for rule in stage.stop_when)


def _is_judged(stage: Stage, rule: Condition, result: StageResult) -> bool:
    """Whether a result has steps enough for a rule. A loss that rises or a huge gradient is a bad
    sign at any time; a poor figure on validation, only of one that has trained at its full rate."""
    shows_at_once = stage.judges_warmup and described(rule.metric).source == "training"
    return (result.steps if shows_at_once else result.judged_steps) >= FEWEST_STEPS


def judge(stage: Stage, results: Sequence[StageResult]) -> Judgement:
    """Apply a stage's rules to its results, in the order in which they are listed.

    One whose training ended within the stage is stopped under any rules. A quality floor which
    would stop every genome of the stage stops none: then the floor, not the genomes, is at fault.
    """
    breaches = {
        result.genome: Breach(result.divergence.reason, None)
        for result in results
        if result.divergence is not None
    }
    sound = [result for result in results if result.divergence is None]
    warnings = []
    for rule in stage.stop_when:
        broken = [r for r in sound if _is_judged(stage, rule, r) and _breaks(rule, r)]
        if _is_quality_floor(rule) and broken and len(broken) == len(sound):
            warnings.append(
                f"the floor `{rule_text(rule)}` is too strict for this stage: it would stop every "
                "genome, so it stops none and promotion decides"
            )
            continue
        for result in broken:
            breaches.setdefault(
                result.genome, Breach(rule_text(rule), result.metrics.get(rule.metric))
            )
    too_short = [result.genome for result in sound if not judgeable(stage, result)]
    return Judgement(breaches, tuple(too_short), tuple(warnings))


def _is_quality_floor(rule: Condition) -> bool:
    return described(rule.metric).source == "predictions"


def _breaks(rule: Condition, result: StageResult) -> bool:
    """Whether the rule's condition is met; an undefined figure meets none.

    For loss_slope the whole interval must lie beyond the threshold, not only the estimate.
    """
    value = result.metrics.get(rule.metric)
    if value is None or not rule.holds_for(value):
        return False
    if rule.metric != "loss_slope":
        return True
    trend = result.loss_trend
    return trend is not None and rule.holds_for(trend.low) and rule.holds_for(trend.high)
