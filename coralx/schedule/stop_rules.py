"""Stop rules: which genomes a stage takes out, and which have too few steps to be judged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from coralx.config.conditions import Condition
from coralx.config.metric_catalogue import metric_entry
from coralx.records.results import StageResult
from coralx.records.run_facts import REVISION
from coralx.schedule.stages import FEWEST_STEPS, Stage


@dataclass(frozen=True)
class Breach:
    """Why a genome is to be stopped."""

    rule: str
    """The rule that it met, or in words why its training ended."""
    value: float | None


@dataclass(frozen=True)
class Judgement:
    """What the rules of a stage say of its genomes."""

    breaches: dict[str, Breach]
    """By genome id."""
    not_judged: tuple[str, ...]
    """Ids of those with too few steps for at least one rule."""
    warnings: tuple[str, ...]


def rule_text(rule: Condition) -> str:
    """A rule as text."""
    return f"{rule.metric} {rule.comparison} {rule.threshold!r}"


def judged_from(first_step: int, last_step: int, warmup_steps: int) -> int:
    """The step from which on a stage's losses make its trend: the first after warm-up if
    FEWEST_STEPS follow, else the stage's own first. Otherwise a first stage that ends within
    warm-up would have no trend."""
    after = max(first_step, warmup_steps)
    return after if last_step - after >= FEWEST_STEPS else first_step


def judgeable(stage: Stage, result: StageResult) -> bool:
    """Whether a result has steps enough for all of its stage's rules."""
    return all(_is_judged(stage, rule, result) for rule in stage.stop_when)


def _is_judged(stage: Stage, rule: Condition, result: StageResult) -> bool:
    """Whether a result has steps enough for a rule. A rising loss or a huge gradient is a bad sign
    at any time; a poor figure on validation only after steps at the full learning rate."""
    shows_at_once = stage.judges_warmup and metric_entry(rule.metric).source == "training"
    return (result.taken_steps if shows_at_once else result.judged_steps) >= FEWEST_STEPS


def is_clear(stage: Stage, result: StageResult) -> bool:
    """Whether no rule can stop the genome, whatever the others' results are. Of one that meets a
    rule they decide: it stops none where it would stop all."""
    return result.divergence is None and not any(
        _is_judged(stage, rule, result) and _meets(rule, result) for rule in stage.stop_when
    )


def judge(
    stage: Stage,
    results: Sequence[StageResult],
    revision: int = REVISION,
    controls: Collection[str] = (),
) -> Judgement:
    """Apply a stage's rules to its results, in the order in which they are listed.

    A genome whose training ended within the stage is stopped, whatever the rules are. A rule that
    would stop every genome that it judges stops none: then its threshold is at fault. In runs of
    `revision` 1 that held for quality floors alone.

    A quality floor stops none of the `controls`: it would choose among them by their figures.
    """
    breaches = {
        result.genome: Breach(result.divergence.reason, None)
        for result in results
        if result.divergence is not None
    }
    completed = [result for result in results if result.divergence is None]
    warnings = []
    for rule in stage.stop_when:
        judged = [r for r in completed if _is_judged(stage, rule, r)]
        stopped = [r for r in judged if _meets(rule, r)]
        if _is_too_strict(rule, len(stopped), len(judged), len(completed), revision):
            kind = "floor" if _is_quality_floor(rule) else "rule"
            warnings.append(
                f"the {kind} `{rule_text(rule)}` is too strict for this stage: it would stop every "
                "genome, so it stops none and promotion decides"
            )
            continue
        if _is_quality_floor(rule):
            stopped = [result for result in stopped if result.genome not in controls]
        for result in stopped:  # of several rules, the first one listed is named
            breaches.setdefault(
                result.genome, Breach(rule_text(rule), result.metrics.get(rule.metric))
            )
    too_short = [result.genome for result in completed if not judgeable(stage, result)]
    return Judgement(breaches, tuple(too_short), tuple(warnings))


def _is_too_strict(
    rule: Condition, stopped: int, judged: int, completed: int, revision: int
) -> bool:
    """Whether a rule is at fault, not the genomes, as it would stop all of them."""
    if _is_quality_floor(rule) and stopped and stopped == completed:
        return True
    # A single genome that is ill says nothing against a threshold.
    return revision >= 2 and stopped == judged >= 2


def _is_quality_floor(rule: Condition) -> bool:
    return metric_entry(rule.metric).source == "predictions"


def _meets(rule: Condition, result: StageResult) -> bool:
    """Whether a result meets the rule's condition; an undefined figure meets none.

    For loss_slope the whole interval must lie beyond the threshold, not only the estimate.
    """
    value = result.metrics.get(rule.metric)
    if value is None or not rule.holds_for(value):
        return False
    if rule.metric != "loss_slope":
        return True
    trend = result.loss_trend
    return trend is not None and rule.holds_for(trend.low) and rule.holds_for(trend.high)
