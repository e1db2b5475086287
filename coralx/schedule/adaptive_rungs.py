"""Adaptive rungs: how hard each stage cuts, by how well it has ranked so far, at equal cost.

The rule: of all survival rates, take those under which a generation's steps bring the most genomes
to the end that could be the best, were each stage as poor a judge as it may well be. A stage that
may well mislead cuts nobody; one that has proven itself cuts hard, and more genomes are born.

Costs are in trainings to the end.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from coralx.records.jobs import StageBudget
from coralx.schedule.rung_reliability import Belief
from coralx.schedule.stages import Stage, quota_of

RATES = tuple(Fraction(rate) for rate in ("1", "3/4", "2/3", "1/2", "1/3", "1/4", "1/6", "1/8"))
"""The survival rates that are considered, beside the configured ones."""

DOUBT = 0.2
"""A stage is taken to be as poor a judge as it is, at worst, but for this probability."""

MOST_POPULATIONS = 2
"""How many genomes are born in a later generation at most: so many populations."""

TEST_SHARE = Fraction(1, 5)
"""The share of a run's steps that the first generation's control group may take, at most."""

SWEEPS = 3
"""How often the rates of all stages are gone through; two are nearly always enough."""


@dataclass(frozen=True)
class GenerationPlan:
    """How a generation goes through the stages."""

    births: int
    controls: int
    """How many of them go through every stage whatever their rank."""
    rates: tuple[Fraction, ...]
    """The survival rate of each stage."""


def cost_of(
    stages: Sequence[Stage], rates: Sequence[Fraction], births: int, controls: int = 0
) -> Fraction:
    """What a generation costs if no stop rule takes a genome out, in whole genomes as stages let
    them go on; of controls, as many as are to be expected among those whom a stage would cut."""
    total, entered, before = Fraction(0), Fraction(births), Fraction(0)
    for stage, rate in zip(stages, rates, strict=True):
        reached = stage.planned_steps(1)
        total += entered * (reached - before)
        quota = Fraction(quota_of(rate, entered))
        before, entered = reached, quota + controls * (1 - quota / entered)
    return total / before


def most_within(limit: Fraction, most: int, cost: Callable[[int], Fraction]) -> int:
    """The greatest of the counts from 1 to `most` whose cost is within the limit; one at least."""
    return max(bisect_right(range(most + 1), limit, lo=1, key=cost) - 1, 1)


def first_plan(stages: Sequence[Stage], births: int, run_cost: Fraction) -> GenerationPlan:
    """That of the first generation, of which nothing is known: stages cut as configured, but up to
    half of the genomes are controls. `run_cost` is that of all generations as configured.

    That half is unbiased whatever the stages are worth: where they mislead it is a random search,
    and it tells so at once. What it takes is saved in later generations, which are one at least.
    """
    rates = tuple(stage.survival_rate for stage in stages)
    alone = cost_of(stages, rates, births)

    def extra(controls: int) -> Fraction:
        return cost_of(stages, rates, births, controls) - alone

    controls = most_within(TEST_SHARE * run_cost, births // 2, extra)
    return GenerationPlan(births, controls, rates)


def later_plan(
    stages: Sequence[Stage], beliefs: Sequence[Belief], allowance: Fraction, population: int
) -> GenerationPlan:
    """That of a later generation, which may cost as much as `allowance`, with one control.

    `beliefs` has one for each stage but the last. A stage that is configured to cut nobody never
    cuts.
    """
    configured = [stage.survival_rate for stage in stages[:-1]]
    rates = [Fraction(1) for _ in configured]

    def births(rates: Sequence[Fraction]) -> int:
        whole = (*rates, Fraction(1))
        most = MOST_POPULATIONS * population
        return most_within(allowance, most, lambda born: cost_of(stages, whole, born, controls=1))

    def value(rates: Sequence[Fraction]) -> float:
        """How many that could be the best reach the end, the control among them."""
        pairs = zip(beliefs, rates, strict=True)
        kept = math.prod(belief.kept(float(rate), DOUBT) for belief, rate in pairs)
        return 1.0 + (births(rates) - 1) * kept

    for _ in range(SWEEPS):  # stage by stage, from cutting nobody on
        for place, own in enumerate(configured):
            before, after = rates[:place], rates[place + 1 :]
            choices = [Fraction(1)] if own == 1 else sorted({*RATES, own}, reverse=True)
            # Of equals the mildest, which comes first.
            rates[place] = max(choices, key=lambda rate: value([*before, rate, *after]))
    return GenerationPlan(births(rates), 1, (*rates, stages[-1].survival_rate))


def with_rates(stages: Sequence[Stage], rates: Sequence[Fraction]) -> tuple[StageBudget, ...]:
    """A generation's budgets where survival rates alone differ from what is configured."""
    share, before, steps = Fraction(1), Fraction(0), []
    for stage, rate in zip(stages, rates, strict=True):
        reached = stage.planned_steps(1)
        steps.append(share * (reached - before))
        before, share = reached, share * rate
    return tuple(
        StageBudget(stage.name, float(part / sum(steps)), str(stage.epoch_budget), str(rate))
        for stage, part, rate in zip(stages, steps, rates, strict=True)
    )
