"""Adaptive rungs: how hard each stage cuts, by how well it has ranked so far, at equal cost.

The rule: of all survival rates, take those under which a generation's steps bring the most genomes
to the end that could be the best, were each stage as poor a judge as it may well be. A stage that
may well mislead cuts nobody; one that has proven itself cuts hard, and more genomes are born.

Costs are in trainings to the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from coralx.records.jobs import StageBudget
from coralx.schedule.rung_reliability import Belief
from coralx.schedule.stages import Stage

RATES = tuple(Fraction(rate) for rate in ("1", "3/4", "2/3", "1/2", "1/3", "1/4", "1/6", "1/8"))
"""The survival rates that are considered, beside the configured ones."""

DOUBT = 0.3
"""A stage is taken to be as poor a judge as it is, at worst, but for this probability."""

FEWEST_BIRTHS = 2
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


def cost_of(stages: Sequence[Stage], rates: Sequence[Fraction]) -> Fraction:
    """What a genome costs on average, as some are cut on the way."""
    total, share, before = Fraction(0), Fraction(1), Fraction(0)
    for stage, rate in zip(stages, rates, strict=True):
        reached = stage.planned_steps(1)
        total += share * (reached - before)
        before, share = reached, share * rate
    return total / before


def first_plan(stages: Sequence[Stage], births: int, run_cost: Fraction) -> GenerationPlan:
    """That of the first generation, of which nothing is known: stages cut as configured, but up to
    half of the genomes are controls. `run_cost` is that of all generations as configured.

    That half is unbiased whatever the stages are worth: where they mislead it is a random search,
    and it tells so at once. What it takes is saved in later generations, which are one at least.
    """
    rates = tuple(stage.survival_rate for stage in stages)
    extra = 1 - cost_of(stages, rates)  # of a control, at most
    affordable = math.floor(TEST_SHARE * run_cost / extra) if extra else births
    return GenerationPlan(births, max(1, min(affordable, births // 2)), rates)


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
        cost = cost_of(stages, (*rates, Fraction(1)))
        affordable = math.floor((allowance - (1 - cost)) / cost)  # one is trained to the end
        return min(max(affordable, FEWEST_BIRTHS), MOST_POPULATIONS * population)

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
