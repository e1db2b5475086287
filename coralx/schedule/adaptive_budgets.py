"""Adaptive budgets: what a generation's stages get, by how diverse its parents are.

While the population is diverse, more is spent on finding out early; when it has converged, more on
training to the end.
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
HIGH_DIVERSITY = 0.8
"""At this diversity and above, the shares are those of DIVERSE; at 0 those of CONVERGED."""

PLACES = 10**6
"""Shares are rounded to millionths, so that what is recorded is exact."""


def shares(diversity: float, stages: int) -> tuple[Fraction, ...]:
    """The share of a generation's steps for each stage; they sum to 1.

    `diversity` is relative to the founders' (1). The two published rows are for four stages; for
    another number they are read off between them, evenly spaced.
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
    what it would have cost. Where an epoch takes even the smallest batch no more than
    `longest_epoch` steps, nobody is cut at a stage that is too short to be scored (None: at any).
    """
    counts = cohort_sizes(stages, population)
    totals = [stage.planned_steps(1) for stage in stages]
    added = [total - before for total, before in zip(totals, [Fraction(0), *totals], strict=False)]
    budget = sum((n * steps for n, steps in zip(counts, added, strict=True)), Fraction(0))
    wanted = shares(diversity, len(stages))
    entering: list[int] = []
    reached = Fraction(0)
    epochs: list[Fraction] = []
    is_short = False
    for stage, count, steps, share in zip(stages, counts, added, wanted, strict=True):
        if not entering:
            genomes = population
        elif is_short:
            genomes = entering[-1]
        else:
            growth = math.sqrt(share * budget / (count * steps)) if steps else 1.0
            genomes = min(max(round(count * growth), 1), entering[-1])
        entering.append(genomes)
        reached += share * budget / genomes
        epochs.append(reached / stage.data_fraction)
        told = replace(stage, epoch_budget=epochs[-1])
        is_short = longest_epoch is not None and told.is_too_short(longest_epoch)
    return tuple(
        StageBudget(
            stage.name,
            float(share),
            str(epoch),
            str(Fraction(after, before)),
        )
        for stage, share, epoch, before, after in zip(
            stages, wanted, epochs, entering, [*entering[1:], entering[-1]], strict=True
        )
    )


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
