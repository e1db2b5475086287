"""Stages and their budgets: pure arithmetic in exact fractions.

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
from coralx.records.jobs import Horizon

FEWEST_STEPS = 8
"""Optimizer steps without which nothing is told of a genome: no stop rule judges fewer, and a stage
that ends before is not scored."""


@dataclass(frozen=True)
class Stage:
    """One rung of the schedule; `place` counts from 0."""

    place: int
    name: str
    epoch_budget: Fraction
    data_fraction: Fraction
    survival_rate: Fraction
    stop_when: tuple[Condition, ...]
    stop_within: tuple[str, ...]
    promote_by: str | None
    eval_limit: int | None
    is_last: bool
    is_scored: bool = True
    """Whether validation is looked at; a stage that decides nothing need not."""
    judges_warmup: bool = False
    """Whether its stop rules may go by what training shows before warm-up is over."""

    def planned_steps(self, steps_per_epoch: int) -> Fraction:
        """The genome's planned total at this stage's end, in (fractional) optimizer steps."""
        return self.epoch_budget * self.data_fraction * steps_per_epoch

    def trained_steps(self, steps_per_epoch: int) -> int:
        """The same as training does it: rounded up, at least one step."""
        return max(1, math.ceil(self.planned_steps(steps_per_epoch)))

    def is_too_short(self, steps_per_epoch: int) -> bool:
        """Whether a genome's figures at its end would tell nothing yet. The last stage's are the
        run's result, however few steps it has."""
        return not self.is_last and self.trained_steps(steps_per_epoch) < FEWEST_STEPS

    def quota(self, entered: int) -> int:
        """How many of the genomes that entered may go on."""
        return max(1, math.floor(self.survival_rate * entered))


def stages_of(configured: Sequence[TrainingStage]) -> tuple[Stage, ...]:
    """The schedule that the stages of a config describe."""
    return tuple(
        Stage(
            place=place,
            name=stage.name,
            epoch_budget=stage.epoch_budget,
            data_fraction=stage.data_percentage / 100,
            survival_rate=stage.survival_rate,
            stop_when=tuple(parse_rule(rule) for rule in stage.stop_when or ()),
            stop_within=stage.stop_within,
            promote_by=stage.promote_by,
            eval_limit=stage.eval_limit,
            is_last=place == len(configured) - 1,
        )
        for place, stage in enumerate(configured)
    )


def schedule_of(configured: HyperbandConfig) -> tuple[Stage, ...]:
    """The stages that a run goes through.

    With `enable_hyperband: false` it is what naive training does: everyone goes on and no stop
    rule acts, an explosion of the loss ends a training as a loss that is not finite does, and
    nobody is scored before the end, as nothing is decided before.
    """
    stages = stages_of(configured.training_stages)
    if configured.enable_hyperband:
        return stages
    return tuple(
        replace(
            stage,
            survival_rate=Fraction(1),
            stop_when=(),
            stop_within=tuple(what for what in stage.stop_within if what == "explosion"),
            is_scored=stage.is_last,
        )
        for stage in stages
    )


def by_length(stages: Sequence[Stage], steps_per_epoch: int) -> tuple[Stage, ...]:
    """The stages as they can decide, where the smallest batch makes so many steps an epoch: one in
    which not even that takes FEWEST_STEPS is not scored, and everyone goes on from it, since
    nothing tells them apart.

    It is for all genomes of a stage alike: larger batches have read the same rows in fewer steps,
    and to let those pass that took too few would favour them.
    """
    judging = [replace(stage, judges_warmup=True) for stage in stages]
    return tuple(
        replace(stage, is_scored=False, survival_rate=Fraction(1))
        if stage.is_too_short(steps_per_epoch)
        else stage
        for stage in judging
    )


def is_asynchronous(configured: HyperbandConfig) -> bool:
    """Whether genomes are promoted one by one: not where nobody is cut."""
    return configured.enable_hyperband and configured.promotion == "asynchronous"


def horizon_of(stages: Sequence[Stage], steps_per_epoch: int, warmup_ratio: float) -> Horizon:
    """The learning-rate schedule's span: the whole planned training, fixed at birth.

    Warm-up takes `warmup_ratio` of it, but at most a fifth of the second stage's total, so that
    an early stage shows more than the warm-up.
    """
    total = stages[-1].trained_steps(steps_per_epoch)
    shakeout = stages[min(1, len(stages) - 1)].trained_steps(steps_per_epoch)
    return Horizon(total, min(math.ceil(warmup_ratio * total), shakeout // 5))
