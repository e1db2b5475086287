"""Warnings about stages with too few steps to judge genomes by, before they are trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from coralx.config.metric_catalogue import described
from coralx.config.schema import Config
from coralx.schedule.stages import FEWEST_STEPS, Stage, horizon_of, longest_epoch, schedule_of
from coralx.text import counted


def brevity(config: Config, rows: int) -> list[str]:
    """A line for each stage that has too few steps to be scored, or for its rules to judge, with
    what to do about it; none where `rows`, the number of training rows, is not known (0)."""
    if not rows or not config.hyperband_config.enable_hyperband:
        return []
    stages, longest = schedule_of(config.hyperband_config), longest_epoch(config, rows)
    lines = []
    for stage in stages[:-1]:
        if stage.is_too_short(longest):
            lines.append(_not_scored_warning(config, stages, stage, longest))
        elif (warning := _not_judged_warning(config, stages, stage, rows)) is not None:
            lines.append(warning)
    return lines


def _not_scored_warning(config: Config, stages: Sequence[Stage], stage: Stage, longest: int) -> str:
    steps, cut = stage.trained_steps(longest), ""
    if stage.survival_rate < 1:
        cut = f", whatever its survival_rate ({float(stage.survival_rate):g})"
    return (
        f"{stage.name} ends after {counted(steps, 'step')}, fewer than the {FEWEST_STEPS} needed "
        "to judge a genome: it is not scored, its stop rules do not act, and everyone goes "
        f"on{cut}. {_way_out(config, stages, stage, longest)}"
    )


def _way_out(config: Config, stages: Sequence[Stage], stage: Stage, longest: int) -> str:
    """How the stage gets steps enough: by its budget or its share, or by smaller batches."""
    smaller = ", or lower the batch size" if config.batch_sizes[0] > 1 else ""
    # Budgets must not fall from stage to stage, so a longer one pushes those after it.
    if stages[stage.place + 1].planned_steps(longest) < FEWEST_STEPS:
        return f"Raise its epoch_budget and that of the stages after it{smaller}"
    factor = FEWEST_STEPS / stage.planned_steps(longest)
    ways = [f"its epoch_budget to {_rounded_up(stage.epoch_budget * factor)}"]
    if stage.data_fraction * factor <= 1:
        ways.append(f"its data_percentage to {_rounded_up(100 * stage.data_fraction * factor)}")
    return f"Raise {' or '.join(ways)}{smaller}"


def _rounded_up(value: Fraction) -> str:
    """A number to three digits, rounded up so that it is enough."""
    unit = Fraction(10) ** (math.floor(math.log10(value)) - 2)
    return f"{float(math.ceil(value / unit) * unit):g}"


def _not_judged_warning(
    config: Config, stages: Sequence[Stage], stage: Stage, rows: int
) -> str | None:
    """A warning where the stage's rules cannot judge some or all genomes; else None."""
    rules = stage.stop_when
    # Rules on training figures act during warm-up, too; see `stop_rules`.
    at_once = all(described(rule.metric).source == "training" for rule in rules)
    steps = []
    for batch in config.batch_sizes:
        epoch = math.ceil(rows / batch)
        before = stages[stage.place - 1].trained_steps(epoch) if stage.place else 0
        warmup = horizon_of(stages, epoch, config.training.warmup_ratio).warmup_steps
        first = before if at_once else max(before, warmup)
        steps.append(max(0, stage.trained_steps(epoch) - first))
    most, fewest = steps
    if not rules or fewest >= FEWEST_STEPS:
        return None
    kind = "of its own" if at_once else "of its own after warm-up"
    if most < FEWEST_STEPS:
        return (
            f"{stage.name} has {counted(most, 'step')} {kind}, fewer than the {FEWEST_STEPS} that "
            f"its stop rules need: not all of them act there. Raise its epoch_budget or its "
            "data_percentage"
        )
    return (
        f"{stage.name} has {fewest} to {most} steps {kind}, by batch size: not all of its stop "
        f"rules act on genomes with fewer than {FEWEST_STEPS}. Raise its epoch_budget or its "
        "data_percentage, or leave out the largest batches"
    )
