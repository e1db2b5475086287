"""Budgets, quotas and cost: the published arithmetic, and what holds for every schedule."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.schedule.brackets import cohort_sizes
from coralx.schedule.cost import plan_of
from coralx.schedule.plan_warnings import finisher_warning
from coralx.schedule.stages import Stage, horizon_of, schedule_of, stages_of
from tests.support.factories import STAGE_NAMES, make_config, make_stages

PUBLISHED = stages_of(make_config().hyperband_config.training_stages)
hundredths = st.integers(1, 100).map(lambda n: n / 100)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Stage, ...]:
    """One to five stages whose cumulative budgets never fall."""
    shares = [draw(st.integers(1, 300)) for _ in range(draw(st.integers(1, 5)))]
    rows = [(n / 100, draw(st.sampled_from([5, 20, 100]))) for n in shares]
    rows.sort(key=lambda row: Fraction(str(row[0])) * row[1])
    return make_stages(*((budget, data, draw(hundredths)) for budget, data in rows))


# -- the published arithmetic --------------------------------------------------------------------


def test_published_plan() -> None:
    plan = plan_of(PUBLISHED, population_size=8, generations=1, steps_per_epoch=1000)
    assert tuple(stage.name for stage in plan.stages) == STAGE_NAMES
    assert [stage.genomes for stage in plan.stages] == [8, 8, 4, 1]
    assert [stage.steps_per_genome for stage in plan.stages] == [Fraction(5, 2), 60, 1000, 2000]
    assert [stage.restart_steps for stage in plan.stages] == [20, 480, 4000, 2000]
    assert [stage.continue_steps for stage in plan.stages] == [20, 460, 3760, 1000]
    assert [plan.naive_steps, plan.restart_steps, plan.continue_steps] == [16000, 6500, 5240]
    assert f"{float(plan.restart_speedup):.2f}" == "2.46"
    assert f"{float(plan.continue_speedup):.2f}" == "3.05"


def test_training_rounds_planned_steps_up() -> None:
    assert [stage.trained_steps(1000) for stage in PUBLISHED] == [3, 60, 1000, 2000]


@pytest.mark.parametrize(("steps_per_epoch", "trained"), [(1, 1), (100, 1), (400, 1), (401, 2)])
def test_training_takes_at_least_one_step(steps_per_epoch: int, trained: int) -> None:
    assert PUBLISHED[0].trained_steps(steps_per_epoch) == trained


# -- quotas --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "entered", "quota"),
    [
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996 in floats
        (0.57, 100, 57),
        (0.1, 10, 1),
        (0.7, 10, 7),
        (0.5, 7, 3),
        (0.1, 3, 1),
        (0.01, 1, 1),
        (1.0, 8, 8),
    ],
)
def test_quota_is_an_exact_floor_and_at_least_one(rate: float, entered: int, quota: int) -> None:
    assert make_stages((1, 100, rate))[0].quota(entered) == quota


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_quota_equals_integer_arithmetic(percent: int, entered: int) -> None:
    stage = make_stages((1, 100, percent / 100))[0]
    assert stage.quota(entered) == max(1, percent * entered // 100)


# -- horizon -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "warmup"),
    [(0.0, 0), (0.001, 2), (0.06, 12), (0.5, 12)],  # a fifth of S1's 60 steps is 12
)
def test_warmup_is_at_most_a_fifth_of_the_second_stage(ratio: float, warmup: int) -> None:
    horizon = horizon_of(PUBLISHED, 1000, ratio)
    assert (horizon.total_steps, horizon.warmup_steps) == (2000, warmup)


@given(schedules(), st.integers(1, 5000), st.floats(0, 0.99))
@settings(max_examples=60, deadline=None)
def test_horizon_spans_the_whole_training_with_a_short_warmup(
    stages: tuple[Stage, ...], steps_per_epoch: int, ratio: float
) -> None:
    horizon = horizon_of(stages, steps_per_epoch, ratio)
    assert horizon.total_steps == stages[-1].trained_steps(steps_per_epoch)
    second = stages[min(1, len(stages) - 1)].trained_steps(steps_per_epoch)
    assert 0 <= 5 * horizon.warmup_steps <= second
    assert horizon.warmup_steps <= ceil(ratio * horizon.total_steps)


# -- every schedule ------------------------------------------------------------------------------


@given(schedules(), st.integers(1, 200), st.integers(1, 5000))
@settings(max_examples=60, deadline=None)
def test_every_plan_adds_up(
    stages: tuple[Stage, ...], population: int, steps_per_epoch: int
) -> None:
    plan = plan_of(stages, population, 1, steps_per_epoch)
    sizes = [stage.genomes for stage in plan.stages]
    assert sizes == list(cohort_sizes(stages, population))
    assert sizes[0] == population
    for stage, entered, going_on in zip(stages, sizes, sizes[1:], strict=False):
        assert going_on == max(1, floor(stage.survival_rate * entered))
    assert all(stage.continue_steps >= 0 for stage in plan.stages)
    assert plan.continue_steps <= plan.restart_steps
    assert plan.continue_steps <= plan.naive_steps
    assert plan.continue_speedup * plan.continue_steps == plan.naive_steps
    trained = [stage.trained_steps(steps_per_epoch) for stage in stages]
    assert trained == sorted(trained)
    for stage, steps in zip(stages, trained, strict=True):
        assert steps >= 1
        assert steps >= stage.planned_steps(steps_per_epoch)
        assert steps < stage.planned_steps(steps_per_epoch) + 1 or steps == 1


@given(schedules(), st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_rate_of_the_last_stage_decides_nothing(stages: tuple[Stage, ...], population: int) -> None:
    everyone = [(float(s.epoch_budget), float(100 * s.data_fraction), 1.0) for s in stages[-1:]]
    head = [
        (float(s.epoch_budget), float(100 * s.data_fraction), float(s.survival_rate))
        for s in stages[:-1]
    ]
    assert cohort_sizes(make_stages(*head, *everyone), population) == cohort_sizes(
        stages, population
    )


def test_without_hyperband_everyone_goes_on_and_no_rule_acts() -> None:
    off = make_config(hyperband_config={"enable_hyperband": False}).hyperband_config
    stages = schedule_of(off)
    assert cohort_sizes(stages, 8) == (8, 8, 8, 8)
    assert [stage.stop_when for stage in stages] == [(), (), (), ()]
    plan = plan_of(stages, 8, 1, 1000)
    assert plan.continue_steps == plan.naive_steps


@pytest.mark.parametrize(("population", "warned"), [(8, True), (23, True), (24, False)])
def test_fewer_than_three_finishers_are_warned_about(population: int, warned: bool) -> None:
    warning = finisher_warning(PUBLISHED, population)
    assert (warning is not None) == warned
    if warning is not None:
        finishers = cohort_sizes(PUBLISHED, population)[-1]
        assert f"only {finishers} of {population} genomes" in warning
        assert "S3_finisher" in warning
