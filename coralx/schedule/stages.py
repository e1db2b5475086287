"""The stages that a run goes through, and their budgets: pure arithmetic in exact fractions.

A stage's budget is the genome's *total* at its end: `epoch_budget` passes over the first
`data_percentage` of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from coralx.config.conditions import Condition, parse_rule
from coralx.config.hyperband import HyperbandConfig, TrainingStage
from coralx.config.schema import Config
from coralx.records.jobs import Horizon

FEWEST_STEPS = 8
"""Optimizer steps that it takes to judge a genome: no stop rule acts on fewer, and a stage with
fewer is not scored."""


@dataclass(frozen=True)
class Stage:
    """One rung of the schedule."""

    place: int
    """Counted from 0."""
    name: str
    epoch_budget: Fraction
    """Passes over the stage's own share of the data, as the genome's total at its end."""
    data_fraction: Fraction
    """The share of the training rows that the stage sees."""
    survival_rate: Fraction
    """The share of the genomes that entered which go on."""
    stop_when: tuple[Condition, ...]
    """Stop rules at the stage's end."""
    stop_within: tuple[str, ...]
    """What ends a genome inside the stage: "explosion", "unreachable"."""
    promote_by: str | None
    """The metric that ranks genomes; None: all objectives do."""
    eval_limit: int | None
    """Validation rows to score; None: all."""
    is_last: bool
    is_scored: bool = True
    """Whether validation is looked at, which a stage that decides nothing need not do."""
    judges_warmup: bool = False
    """Whether its stop rules on training figures may act before warm-up is over."""

    def planned_steps(self, steps_per_epoch: int) -> Fraction:
        """The genome's planned total at this stage's end, in (fractional) optimizer steps."""
        return self.epoch_budget * self.data_fraction * steps_per_epoch

    def trained_steps(self, steps_per_epoch: int) -> int:
        """The same in whole steps, as they are trained: rounded up, at least one."""
        return max(1, math.ceil(self.planned_steps(steps_per_epoch)))

    def is_too_short(self, steps_per_epoch: int) -> bool:
        """Whether it ends too early for genomes to be judged. The last stage never does: its
        figures are the run's result, however few steps it has."""
        return not self.is_last and self.trained_steps(steps_per_epoch) < FEWEST_STEPS

    def quota(self, entered: int) -> int:
        """How many of the genomes that entered may go on."""
        return quota_of(self.survival_rate, entered)


def quota_of(rate: Fraction, entered: Fraction | int) -> int:
    """The same at any survival rate, and for a number that is expected."""
    return max(1, math.floor(rate * entered))


def stages_of(configured: Sequence[TrainingStage]) -> tuple[Stage, ...]:
    """The schedule that the stages of a config describe."""
    last = len(configured) - 1
    return tuple(_stage(stage, place, place == last) for place, stage in enumerate(configured))


def _stage(configured: TrainingStage, place: int, is_last: bool) -> Stage:
    return Stage(
        place=place,
        name=configured.name,
        epoch_budget=configured.epoch_budget,
        data_fraction=configured.data_percentage / 100,
        survival_rate=configured.survival_rate,
        stop_when=tuple(parse_rule(rule) for rule in configured.stop_when or ()),
        stop_within=configured.stop_within,
        promote_by=configured.promote_by,
        eval_limit=configured.eval_limit,
        is_last=is_last,
    )


def schedule_of(configured: HyperbandConfig) -> tuple[Stage, ...]:
    """The stages that a run goes through.

    With `enable_hyperband: false` it is what naive training does: every genome goes on, no stop
    rule acts, and nothing is scored before the end, as nothing is decided before. Only an explosion
    of the loss ends a training, as a loss that is not finite does.
    """
    stages = stages_of(configured.training_stages)
    if configured.enable_hyperband:
        return stages
    return tuple(_without_decisions(stage) for stage in stages)


def _without_decisions(stage: Stage) -> Stage:
    return replace(
        stage,
        survival_rate=Fraction(1),
        stop_when=(),
        stop_within=tuple(kind for kind in stage.stop_within if kind == "explosion"),
        is_scored=stage.is_last,
    )


def by_length(stages: Sequence[Stage], steps_per_epoch: int) -> tuple[Stage, ...]:
    """The stages where the smallest batch makes `steps_per_epoch` steps an epoch: one that is too
    short even then is not scored, and every genome goes on from it.

    The smallest batch decides for all genomes alike. Larger ones have read the same rows in fewer
    steps; to let only those pass would favour them.
    """
    judging = [replace(stage, judges_warmup=True) for stage in stages]
    return tuple(
        replace(stage, is_scored=False, survival_rate=Fraction(1))
        if stage.is_too_short(steps_per_epoch)
        else stage
        for stage in judging
    )


def longest_epoch(config: Config, rows: int) -> int:
    """Steps that an epoch of so many rows takes with the smallest batch that a genome may have."""
    return steps_in_epoch(rows, config.batch_sizes[0])


def steps_in_epoch(rows: int, batch_size: int) -> int:
    """Steps that an epoch of so many rows takes."""
    return math.ceil(rows / batch_size)


def planned_stages(config: Config, rows: int) -> tuple[Stage, ...]:
    """The stages as a run on so many training rows goes through them. On 0 rows, which stands for a
    number that is not known yet, all count as long enough."""
    stages = schedule_of(config.hyperband_config)
    return by_length(stages, longest_epoch(config, rows)) if rows else stages


def horizon_of(stages: Sequence[Stage], steps_per_epoch: int, warmup_ratio: float) -> Horizon:
    """The learning-rate schedule's span: the whole planned training, fixed at birth.

    Warm-up takes `warmup_ratio` of it, but at most a fifth of the second stage's total, so that
    an early stage shows more than the warm-up.
    """
    total = stages[-1].trained_steps(steps_per_epoch)
    second = stages[min(1, len(stages) - 1)].trained_steps(steps_per_epoch)
    return Horizon(total, min(math.ceil(warmup_ratio * total), second // 5))
