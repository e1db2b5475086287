"""How hard stages cut by how well they rank, and what a generation may cost."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.records.verdicts import Cut, Promote
from coralx.schedule.adaptive_budgets import with_budgets
from coralx.schedule.adaptive_rungs import (
    cost_of,
    first_plan,
    later_plan,
    with_rates,
)
from coralx.schedule.promotion import decide
from coralx.schedule.rung_reliability import Cohort, prior, updated
from coralx.schedule.stages import stages_of
from coralx.schedule.stop_rules import judge
from tests.support.factories import make_config, make_result, make_stages

STAGES = make_stages((0.05, 100, 0.5), (0.5, 100, 0.5), (1, 100, 1))
RATES = tuple(stage.survival_rate for stage in STAGES)
SHARE = cost_of(STAGES, RATES, 8)
"""What a generation of eight costs as configured: 3.2 trainings to the end."""

TRUE = updated(prior(), [Cohort(8, tuple(range(8)))] * 3)
AGAINST = updated(prior(), [Cohort(8, tuple(reversed(range(8))))] * 3)
BELIEFS = {"true": TRUE, "unknown": prior(), "against": AGAINST}


def test_what_a_generation_costs() -> None:
    assert Fraction("3.2") == SHARE
    assert cost_of(STAGES, [Fraction(1)] * 3, 8) == 8
    # Of two genomes one goes on, and of that one as well: a stage lets one pass at least.
    assert cost_of(STAGES, RATES, 2) == 2 * Fraction("0.05") + Fraction("0.95")
    # A control goes on beside it unless it is that one.
    assert cost_of(STAGES, RATES, 2, controls=1) > cost_of(STAGES, RATES, 2)
    assert cost_of(STAGES, RATES, 1, controls=1) == 1


def test_stages_that_mislead_cut_nobody_and_fewer_are_born() -> None:
    plan = later_plan(STAGES, [AGAINST, AGAINST], SHARE, 8)
    assert set(plan.rates) == {Fraction(1)}
    assert plan.births == 3


def test_stages_that_have_proven_themselves_cut_harder_and_more_are_born() -> None:
    plan = later_plan(STAGES, [TRUE, TRUE], SHARE, 8)
    assert plan.rates[0] < RATES[0]
    assert 8 < plan.births <= 16


def test_each_stage_is_judged_by_itself() -> None:
    first, second, _ = later_plan(STAGES, [AGAINST, TRUE], SHARE, 8).rates
    assert first == 1 > second


def test_a_stage_that_is_configured_to_cut_nobody_never_does() -> None:
    stages = make_stages((0.05, 100, 1), (0.5, 100, 0.5), (1, 100, 1))
    assert later_plan(stages, [TRUE, TRUE], SHARE, 8).rates[0] == 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(BELIEFS)), st.sampled_from(sorted(BELIEFS)), st.integers(2, 40))
def test_a_generation_costs_no_more_than_it_may(first: str, second: str, tenths: int) -> None:
    allowance = Fraction(tenths, 4)
    plan = later_plan(STAGES, [BELIEFS[first], BELIEFS[second]], allowance, 8)
    assert plan.births == 1 or cost_of(STAGES, plan.rates, plan.births, 1) <= allowance
    assert plan.controls == 1


@pytest.mark.parametrize(("generations", "controls"), [(1, 1), (2, 2), (3, 3), (10, 4), (999, 4)])
def test_controls_of_the_first_generation_by_the_length_of_the_run(
    generations: int, controls: int
) -> None:
    plan = first_plan(STAGES, 8, generations * SHARE)
    assert plan.births == 8
    assert plan.rates == RATES
    assert plan.controls == controls


def test_stages_without_cuts_leave_nothing_to_learn_at_a_price() -> None:
    uncut = make_stages((0.5, 100, 1), (1, 100, 1))
    assert first_plan(uncut, 8, Fraction(16)).controls == 4


def test_recorded_rates_are_read_back_exactly() -> None:
    rates = (Fraction(1, 6), Fraction(2, 3), Fraction(1))
    budgets = with_rates(STAGES, rates)
    assert sum(budget.share for budget in budgets) == pytest.approx(1)
    again = with_budgets(STAGES, budgets)
    assert tuple(stage.survival_rate for stage in again) == rates
    assert [s.epoch_budget for s in again] == [s.epoch_budget for s in STAGES]


def test_controls_go_on_beyond_the_quota() -> None:
    results = [make_result(genome) for genome in "abcd"]
    verdicts = decide(STAGES[0], results, list("abcd"), {}, {}, controls={"a", "d"})
    assert verdicts == (Promote("a"), Promote("b"), Cut("c", 3, 2), Promote("d"))


def test_a_quality_rule_does_not_stop_a_control_but_a_training_rule_does() -> None:
    stages = make_config(
        hyperband_config={
            "training_stages": [
                {
                    "name": "A",
                    "epoch_budget": 1,
                    "data_percentage": 50,
                    "survival_rate": 0.5,
                    "stop_when": ["auroc < 0.55", "gradient_norm > 50"],
                },
                {"name": "B", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
            ]
        }
    ).hyperband_config.training_stages
    stage = stages_of(stages)[0]
    calm = {"gradient_norm": 1.0}
    results = [
        make_result("good", metrics={"auroc": 0.9, **calm}),
        make_result("poor", metrics={"auroc": 0.5, **calm}),
        make_result("control", metrics={"auroc": 0.5, **calm}),
        make_result("wild", metrics={"auroc": 0.9, "gradient_norm": 99.0}),
    ]
    assert set(judge(stage, results, controls={"control", "wild"}).breaches) == {"poor", "wild"}
