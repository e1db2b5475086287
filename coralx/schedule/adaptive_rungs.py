"""Adaptive rungs: how hard each stage cuts, by how well it has ranked so far, at equal cost.

The rule: of all survival rates, take those under which a generation's steps bring the most genomes
to the end that could be the best, were each stage as poor a judge as it may well be. A stage that
may well mislead cuts nobody; one that has proven itself cuts hard, and more genomes are born.
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

DOUBT = 0.2
"""A stage is taken to be as poor a judge as it may be with this probability."""

FEWEST_BIRTHS = 2
SWEEPS = 3
MOST_BIRTHS = 2
"""Populations that are born in a generation at most."""

TEST_SHARE = Fraction(1, 5)
"""Of the run's steps, how much the first generation may take beyond its own share, to learn what
the stages are worth."""


@dataclass(frozen=True)
class GenerationPlan:
    """How a generation goes through the stages."""

    births: int
    rates: tuple[Fraction, ...] | None
    """The survival rate of each stage; None: as configured, or as budgets adapt."""


def cost_of(stages: Sequence[Stage], rates: Sequence[Fraction]) -> Fraction:
    """What a genome costs on average, in trainings to the end, as some are cut on the way."""
    total, share = Fraction(0), Fraction(1)
    before = Fraction(0)
    for stage, rate in zip(stages, rates, strict=True):
        reached = stage.planned_steps(1)
        total += share * (reached - before)
        before, share = reached, share * rate
    return total / before


def first_plan(stages: Sequence[Stage], allowance: Fraction, births: int) -> GenerationPlan:
    """That of the first generation, of which nothing is known: as few are cut as `allowance`, in
    trainings to the end, affords; between nobody and the share that the stages are configured for.
    """
    for hundredth in range(101):
        rates = tuple(1 - Fraction(hundredth, 100) * (1 - stage.survival_rate) for stage in stages)
        if _cost_with_control(births, cost_of(stages, rates)) <= allowance:
            break
    return GenerationPlan(births, rates)


def plan(
    stages: Sequence[Stage], beliefs: Sequence[Belief], allowance: Fraction, population: int
) -> GenerationPlan:
    """The plan of a later generation that may cost as much as `allowance` trainings to the end.

    `beliefs` has one for each stage but the last. One genome is of the control group; at most
    `MOST_BIRTHS` populations are born.
    """
    configured = [stage.survival_rate for stage in stages[:-1]]
    rates = [Fraction(1) for _ in configured]

    def births(rates: Sequence[Fraction]) -> int:
        cost = cost_of(stages, (*rates, Fraction(1)))
        affordable = math.floor((allowance - (1 - cost)) / cost)
        return min(max(affordable, FEWEST_BIRTHS), MOST_BIRTHS * population)

    def value(rates: Sequence[Fraction]) -> float:
        """How many that could be the best reach the end, the control included."""
        pairs = zip(beliefs, rates, strict=True)
        kept = math.prod(belief.kept(float(rate), DOUBT) for belief, rate in pairs)
        return 1.0 + (births(rates) - 1) * kept

    for _ in range(SWEEPS):  # rung by rung, from cutting nobody on
        for place, own in enumerate(configured):
            if own == 1:
                continue  # a stage that was never meant to cut
            # Of equals the mildest, which comes first.
            rates[place] = max(
                sorted({*RATES, own}, reverse=True),
                key=lambda rate: value([*rates[:place], rate, *rates[place + 1 :]]),
            )
    return GenerationPlan(births(rates), (*rates, stages[-1].survival_rate))


def _cost_with_control(births: int, cost: Fraction) -> Fraction:
    """What a generation costs of which one genome goes through to the end in any case."""
    return births * cost + (1 - cost)


def with_rates(stages: Sequence[Stage], rates: Sequence[Fraction]) -> tuple[StageBudget, ...]:
    """A generation's budgets where survival rates alone differ from what is configured."""
    shares = [Fraction(1)]
    for rate in rates[:-1]:
        shares.append(shares[-1] * rate)
    totals = [stage.planned_steps(1) for stage in stages]
    before = [Fraction(0), *totals]
    steps = [share * (t - b) for share, t, b in zip(shares, totals, before, strict=False)]
    return tuple(
        StageBudget(stage.name, float(part / sum(steps)), str(stage.epoch_budget), str(rate))
        for stage, part, rate in zip(stages, steps, rates, strict=True)
    )
