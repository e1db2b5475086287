"""Adaptive budgets: how a generation's steps are shared among stages, by its parents' diversity.

While the population is diverse, early stages get more; when it has converged, late stages do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from coralx.records.jobs import StageBudget
from coralx.schedule.brackets import cohort_sizes
from coralx.schedule.stages import Stage

DIVERSE = (0.10, 0.40, 0.30, 0.20)
CONVERGED = (0.05, 0.20, 0.35, 0.40)
"""The published shares of four stages."""

HIGH_DIVERSITY = 0.8
"""At this diversity and above, the shares are those of DIVERSE; at 0 those of CONVERGED."""

PLACES = 10**6
"""Shares are rounded to millionths, so that what is recorded is exact."""


def shares(diversity: float, stages: int) -> tuple[Fraction, ...]:
    """The share of a generation's steps for each stage; they sum to 1.

    `diversity` is relative to the founders' (1). The two published rows are for four stages; for
    another number they are interpolated at evenly spaced places.
    """
    weight = min(max(diversity / HIGH_DIVERSITY, 0.0), 1.0)
    row = weight * np.asarray(DIVERSE) + (1.0 - weight) * np.asarray(CONVERGED)
    spread = np.interp(np.linspace(0.0, 1.0, stages), np.linspace(0.0, 1.0, len(row)), row)
    whole = [round(float(share) * PLACES) for share in spread]
    return tuple(Fraction(part, sum(whole)) for part in whole)


def adapted(
    stages: Sequence[Stage], population: int, diversity: float, longest_epoch: int | None = None
) -> tuple[StageBudget, ...]:
    """Budgets for a generation of `population` genomes; the planned total of steps is kept.

    A stage that is to get f times the steps that it has now gets sqrt(f) times the genomes, in
    whole numbers and never more than the stage before it, and the rest in steps for each of them.
    Survival rates and epoch budgets follow. Without a stop rule, the generation then costs exactly
    what it would have cost. `longest_epoch` is the number of steps an epoch takes with the smallest
    batch: nobody is cut at a stage that is too short even for it. None: every stage can cut.
    """
    now = _genomes_and_steps(stages, population)
    budget = sum((genomes * steps for genomes, steps in now), Fraction(0))
    targets = shares(diversity, len(stages))
    entering: list[int] = []
    epochs: list[Fraction] = []
    reached = Fraction(0)  # the steps of one genome so far, for one step an epoch
    cuts = False  # whether the stage before can cut
    for stage, (count, steps), share in zip(stages, now, targets, strict=True):
        genomes = entering[-1] if entering else population
        if cuts:
            growth = math.sqrt(share * budget / (count * steps)) if steps else 1.0
            genomes = min(max(round(count * growth), 1), genomes)
        entering.append(genomes)
        reached += share * budget / genomes
        epochs.append(reached / stage.data_fraction)
        changed = replace(stage, epoch_budget=epochs[-1])
        cuts = longest_epoch is None or not changed.is_too_short(longest_epoch)
    going_on = [*entering[1:], entering[-1]]
    return tuple(
        StageBudget(stage.name, float(share), str(epoch), str(Fraction(after, before)))
        for stage, share, epoch, before, after in zip(
            stages, targets, epochs, entering, going_on, strict=True
        )
    )


def _genomes_and_steps(stages: Sequence[Stage], population: int) -> list[tuple[int, Fraction]]:
    """For each stage, how many genomes train in it and the steps that it adds to each, for one step
    an epoch."""
    totals = [stage.planned_steps(1) for stage in stages]
    before = [Fraction(0), *totals[:-1]]
    added = [total - earlier for total, earlier in zip(totals, before, strict=True)]
    return list(zip(cohort_sizes(stages, population), added, strict=True))


def with_budgets(stages: Sequence[Stage], budgets: Sequence[StageBudget]) -> tuple[Stage, ...]:
    """The stages with recorded budgets in place of the configured ones."""
    return tuple(
        replace(
            stage,
            epoch_budget=Fraction(budget.epoch_budget),
            survival_rate=Fraction(budget.survival_rate),
        )
        for stage, budget in zip(stages, budgets, strict=True)
    )
