"""What a plan says of stages with too few steps to tell anything, before they are trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from coralx.config.metric_catalogue import described
from coralx.config.schema import Config
from coralx.schedule.stages import FEWEST_STEPS, Stage, by_length, horizon_of, schedule_of
from coralx.text import counted


def planned_stages(config: Config, rows: int) -> tuple[Stage, ...]:
    """The stages as a run on so many training rows goes through them; on 0, which stands for a
    number that is not known yet, as if all were long enough."""
    stages = schedule_of(config.hyperband_config)
    return by_length(stages, _longest_epoch(config, rows)) if rows else stages


def brevity(config: Config, rows: int) -> list[str]:
    """A line for each stage that has too few steps to be scored, or for its rules to judge, with
    what would mend it; none where `rows`, the number of training rows, is not known (0)."""
    if not rows or not config.hyperband_config.enable_hyperband:
        return []
    stages, longest = schedule_of(config.hyperband_config), _longest_epoch(config, rows)
    lines = []
    for stage in stages[:-1]:
        if stage.is_too_short(longest):
            lines.append(_not_scored(config, stages, stage, longest))
        elif (steps := _judged_steps(config, stages, stage, rows)) is not None:
            lines.append(steps)
    return lines


def _longest_epoch(config: Config, rows: int) -> int:
    return math.ceil(rows / config.batch_sizes[0])


def _not_scored(config: Config, stages: Sequence[Stage], stage: Stage, longest: int) -> str:
    steps = stage.trained_steps(longest)
    cut = (
        f", whatever its survival_rate ({float(stage.survival_rate):g})"
        if stage.survival_rate < 1
        else ""
    )
    return (
        f"{stage.name} ends after {counted(steps, 'step')}, fewer than the {FEWEST_STEPS} that "
        "tell anything of a genome: it is not scored, its stop rules do not act, and everyone goes "
        f"on{cut}. {_mend(config, stages, stage, longest)}"
    )


def _mend(config: Config, stages: Sequence[Stage], stage: Stage, longest: int) -> str:
    """How the stage gets steps enough: by its budget or its share, or by smaller batches."""
    smaller = ", or lower the batch size" if config.batch_sizes[0] > 1 else ""
    if stages[stage.place + 1].planned_steps(longest) < FEWEST_STEPS:  # no stage may fall behind
        return f"Raise its epoch_budget and that of the stages after it{smaller}"
    factor = FEWEST_STEPS / stage.planned_steps(longest)
    ways = [f"its epoch_budget to {_upwards(stage.epoch_budget * factor)}"]
    if stage.data_fraction * factor <= 1:
        ways.append(f"its data_percentage to {_upwards(100 * stage.data_fraction * factor)}")
    return f"Raise {' or '.join(ways)}{smaller}"


def _upwards(value: Fraction) -> str:
    """Rounded up to three digits, so that it is enough."""
    unit = Fraction(10) ** (math.floor(math.log10(value)) - 2)
    return f"{float(math.ceil(value / unit) * unit):g}"


def _judged_steps(config: Config, stages: Sequence[Stage], stage: Stage, rows: int) -> str | None:
    """Which genomes the stage's rules cannot judge, if there are any."""
    rules = stage.stop_when
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
