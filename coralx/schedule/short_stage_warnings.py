"""Warnings about stages with too few steps to judge genomes by, before they are trained."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction

from coralx.config.metric_catalogue import metric_entry
from coralx.config.schema import Config
from coralx.schedule.stages import (
    FEWEST_STEPS,
    Stage,
    horizon_of,
    longest_epoch,
    schedule_of,
    steps_in_epoch,
)
from coralx.text import counted, enumerated


def short_stage_warnings(config: Config, rows: int) -> list[str]:
    """A line for each stage that has too few steps for genomes to be scored, to be compared, or to
    be judged by its rules, with what to do about it; none where `rows`, the number of training
    rows, is not known (0)."""
    if not rows or not config.hyperband_config.enable_hyperband:
        return []
    stages, longest = schedule_of(config.hyperband_config), longest_epoch(config, rows)
    lines: list[str] = []
    for stage in stages[:-1]:
        if stage.is_too_short(longest):
            lines.append(_not_scored_warning(config, stages, stage, longest))
            continue
        short = _sizes_below(config, rows, stage.trained_steps)
        if short:
            lines.append(_too_large_warning(stages, stage, rows, short))
        own_steps = _judged_steps(config, stages, stage)
        not_judged = _sizes_below(config, rows, own_steps)
        if stage.stop_when and len(not_judged) > len(short):
            lines.append(_not_judged_warning(config, stage, rows, own_steps))
    return lines


def can_judge(config: Config, stages: Sequence[Stage], stage: Stage, longest: int) -> bool:
    """Whether a stage is long enough for all its rules to act on somebody: on genomes of the
    smallest batch, with which an epoch takes `longest` steps. If not, `short_stage_warnings`
    says so."""
    own_steps = _judged_steps(config, stages, stage)(longest)
    return not stage.is_too_short(longest) and own_steps >= FEWEST_STEPS


def _sizes_below(config: Config, rows: int, steps: Callable[[int], int]) -> Sequence[int]:
    """The batch sizes with which a genome gets too few steps, the smallest first; `steps` is how
    many an epoch of so many steps gives it."""
    sizes = config.batch_sizes
    # The larger the batch, the fewer the steps.
    first = bisect_left(
        sizes, True, key=lambda size: steps(steps_in_epoch(rows, size)) < FEWEST_STEPS
    )
    return sizes[first:]


def _judged_steps(config: Config, stages: Sequence[Stage], stage: Stage) -> Callable[[int], int]:
    """How many steps of a stage its rules go by, as a function of the steps an epoch takes."""
    judges_warmup = _judges_warmup(stage)

    def steps(epoch: int) -> int:
        before = stages[stage.place - 1].trained_steps(epoch) if stage.place else 0
        warmup = horizon_of(stages, epoch, config.training.warmup_ratio).warmup_steps
        first = before if judges_warmup else max(before, warmup)
        return max(0, stage.trained_steps(epoch) - first)

    return steps


def _judges_warmup(stage: Stage) -> bool:
    """Whether all its rules act during warm-up, too, as those on training figures do; see
    `stop_rules`."""
    return all(metric_entry(rule.metric).source == "training" for rule in stage.stop_when)


def _not_scored_warning(config: Config, stages: Sequence[Stage], stage: Stage, longest: int) -> str:
    steps, cut = stage.trained_steps(longest), ""
    if stage.survival_rate < 1:
        cut = f", whatever its survival_rate ({float(stage.survival_rate):g})"
    smaller = ", or lower the batch size" if config.batch_sizes[0] > 1 else ""
    return (
        f"{stage.name} ends after {counted(steps, 'step')}, fewer than the {FEWEST_STEPS} needed "
        "to judge a genome: it is not scored, its stop rules do not act, and everyone goes "
        f"on{cut}. {_way_out(stages, stage, longest)}{smaller}"
    )


def _too_large_warning(
    stages: Sequence[Stage], stage: Stage, rows: int, short: Sequence[int]
) -> str:
    """A warning of batch sizes with which a genome gets too few steps, in a stage that is long
    enough for smaller ones."""
    fewest, most = (stage.trained_steps(steps_in_epoch(rows, short[n])) for n in (-1, 0))
    steps = counted(most, "step") if fewest == most else f"{fewest} to {most} steps"
    rules = ", and no stop rule acts on them" if stage.stop_when else ""
    compared = "scored and ranked" if stage.survival_rate == 1 else "scored, ranked and cut"
    return (
        f"{stage.name} ends after {steps} with {_named(short)}, fewer than the {FEWEST_STEPS} "
        f"needed to judge a genome: such genomes are {compared} with the others all the "
        f"same{rules}. {_way_out(stages, stage, steps_in_epoch(rows, short[-1]))}, or leave out "
        f"{_named(short)}"
    )


def _named(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"batch size {sizes[0]}"
    if isinstance(sizes, range):
        return f"batch sizes {sizes[0]} to {sizes[-1]}"
    return f"batch sizes {enumerated(map(str, sizes))}"


def _way_out(stages: Sequence[Stage], stage: Stage, epoch: int) -> str:
    """How the stage gets steps enough where an epoch takes so many: by its budget or its share."""
    # Budgets must not fall from stage to stage, so a longer one pushes those after it.
    if stages[stage.place + 1].planned_steps(epoch) < FEWEST_STEPS:
        return "Raise its epoch_budget and that of the stages after it"
    factor = FEWEST_STEPS / stage.planned_steps(epoch)
    ways = [f"its epoch_budget to {_rounded_up(stage.epoch_budget * factor)}"]
    if stage.data_fraction * factor <= 1:
        ways.append(f"its data_percentage to {_rounded_up(100 * stage.data_fraction * factor)}")
    return f"Raise {' or '.join(ways)}"


def _rounded_up(value: Fraction) -> str:
    """A number to three digits, rounded up so that it is enough."""
    unit = Fraction(10) ** (math.floor(math.log10(value)) - 2)
    return f"{float(math.ceil(value / unit) * unit):g}"


def _not_judged_warning(
    config: Config, stage: Stage, rows: int, own_steps: Callable[[int], int]
) -> str:
    """A warning of a stage whose rules cannot judge some or all genomes."""
    sizes = config.batch_sizes
    most, fewest = (own_steps(steps_in_epoch(rows, sizes[n])) for n in (0, -1))
    kind = "of its own" if _judges_warmup(stage) else "of its own after warm-up"
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
