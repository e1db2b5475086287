"""The search for a schedule, on curves of which the right answer is known."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from coralx.config import Config
from coralx.rng import generator
from coralx.schedule.cohort_regret import Floats, drawn_cohorts
from coralx.schedule.stages import stages_of
from coralx.schedule.tuning import Candidates, Grid, judged, search
from coralx.schedule.tuning_costs import Prices, Rung, Schedule
from coralx.schedule.tuning_curves import (
    LOSS,
    METRIC,
    CurveTable,
    Signal,
    area_deviation,
    common_shares,
    share_deviation,
)

TENTH, HALF, ALL = Fraction(1, 10), Fraction(1, 2), Fraction(1)
COUNT, POPULATION = 12, 4
SKILL = np.linspace(0.7, 0.9, COUNT)
PRICES = Prices(training=1000, validation=100)
GRID = Grid((TENTH, HALF), (50, 100), (METRIC,), POPULATION)


def table_of(at_tenth: Floats, at_half: Floats, name: str = "made up") -> CurveTable:
    """Curves of COUNT configurations of which SKILL is the full result."""
    return CurveTable(
        name=name,
        metric="auroc",
        configurations=tuple(f"c{number}" for number in range(COUNT)),
        checkpoints=((TENTH, HALF, ALL),) * COUNT,
        signals={METRIC: Signal(np.stack([at_tenth, at_half, SKILL], axis=1))},
        full=SKILL,
        tolerance=0.003,
    )


def found(*tables: CurveTable, grid: Grid = GRID) -> Candidates:
    return search(tables, grid, PRICES, generator(1, "test"), progress=lambda _: None)


def best(candidates: Candidates, within: float = 1.0) -> Schedule:
    return candidates.schedules[candidates.cheapest(within)]


def test_curves_that_rank_truly_are_cut_as_early_and_as_hard_as_can_be() -> None:
    candidates = found(table_of(SKILL - 0.2, SKILL - 0.1))
    assert best(candidates) == Schedule((Rung(TENTH, 50, 1),))
    assert candidates.held_out(1.0) == pytest.approx([0.0])


def test_curves_that_mislead_until_the_end_are_not_cut() -> None:
    assert best(found(table_of(-SKILL, -SKILL))) == Schedule()


def test_a_stage_that_misleads_is_passed_over_for_one_that_ranks() -> None:
    assert best(found(table_of(-SKILL, SKILL))) == Schedule((Rung(HALF, 50, 1),))


def test_every_table_must_be_kept_to_the_tolerance() -> None:
    early, late = table_of(SKILL, SKILL, "early"), table_of(-SKILL, SKILL, "late")
    candidates = found(early, late)
    assert best(candidates) == Schedule((Rung(HALF, 50, 1),))
    on_one = candidates.cheapest(1.0, tables=[0])
    assert candidates.schedules[on_one] == Schedule((Rung(TENTH, 50, 1),))
    assert candidates.regrets[on_one, 1, 0] > 1.0


def test_a_stage_ranks_by_the_figure_that_ranks_best() -> None:
    table = table_of(-SKILL, -SKILL)
    signals = {**table.signals, LOSS: Signal(np.stack([SKILL] * 3, axis=1))}
    grid = replace(GRID, figures=(METRIC, LOSS))
    assert best(found(replace(table, signals=signals), grid=grid)) == Schedule(
        (Rung(TENTH, 50, 1, LOSS),)
    )


def test_rows_are_scored_as_the_noise_asks_for() -> None:
    """On few rows these figures are drowned, on 1,000 nearly exact."""
    table = table_of(SKILL, SKILL)
    values = table.signals[METRIC].values
    noisy = Signal(values, np.full(values.shape, 1000.0), np.full(values.shape, 3.0))
    table = replace(table, signals={METRIC: noisy})
    assert noisy.noise(1000) == pytest.approx(np.zeros_like(values))
    assert noisy.noise(250) == pytest.approx(
        np.full_like(values, 3.0 * np.sqrt(0.5 * (1 / 250 - 1 / 1000)))
    )
    few, many = (Schedule((Rung(TENTH, rows, 1),)) for rows in (10, 1000))
    lost = [judged(schedule, table, POPULATION, generator(1, "x")) for schedule in (few, many)]
    means = [regret.mean.mean for regret in lost if regret is not None]
    assert means[0] > 0.02
    assert means[1] == 0.0
    grid = replace(GRID, rows=(10, 1000))
    assert {rung.rows for rung in best(found(table, grid=grid)).rungs} == {1000}


def test_what_is_chosen_is_judged_by_cohorts_whose_best_it_has_not_seen() -> None:
    """One configuration looks poor at first and ends best: whoever has not seen it cuts early."""
    early = SKILL.copy()
    early[-1] = 0.0
    candidates = found(table_of(early, early))
    assert candidates.held_out(1.0)[0] > 3 * candidates.regrets[candidates.cheapest(1.0), 0, 0]


def test_the_parts_of_the_folds_make_up_the_mean_of_all_cohorts() -> None:
    rough = SKILL + generator(1, "rough").normal(0, 0.05, COUNT)
    candidates = found(table_of(rough, SKILL))
    folds = (candidates.regrets.shape[2] - 1) // 2
    assert folds == 5
    parts = candidates.regrets[:, :, 1 + folds :].sum(axis=2)
    assert parts == pytest.approx(candidates.regrets[:, :, 0])


def test_the_published_schedule_costs_what_its_plan_says() -> None:
    """5,240 steps of 16,000, as the plan for eight genomes has it, where scoring is free."""
    prices = Prices(training=2000, validation=512, evaluation=0.0, overhead=0.0)
    stages = stages_of(Config().hyperband_config.training_stages)
    whole, entered, rungs = stages[-1].planned_steps(1), 8, []
    for stage in stages[:-1]:
        entered = stage.quota(entered)
        rungs.append(Rung(stage.planned_steps(1) / whole, 512, entered))
    assert prices.cost(Schedule(tuple(rungs)), 8) == pytest.approx(5240)
    assert prices.cost(Schedule(), 8) == pytest.approx(16_000)


def test_scoring_and_overhead_are_paid_by_every_genome_that_enters() -> None:
    prices = Prices(training=1000, validation=100, evaluation=0.5, overhead=5)
    cost = prices.cost(Schedule((Rung(TENTH, 64, 1),)), 4)
    assert cost == pytest.approx(4 * (100 + 32 + 5) + (900 + 50 + 5))


def test_a_stage_sees_the_last_checkpoint_before_its_end_if_one_is_near() -> None:
    table = table_of(SKILL, SKILL)
    assert [table.place(0, share) for share in (TENTH, Fraction(2, 5), HALF)] == [0, None, 1]
    assert table.place(0, Fraction(15, 100)) == 0
    assert common_shares([table], [HALF, Fraction(1, 20), TENTH]) == [TENTH, HALF]
    assert judged(Schedule((Rung(Fraction(1, 50), 64, 1),)), table, 4, generator(1, "x")) is None
    # A stage that cuts nobody needs no figures.
    harmless = judged(Schedule((Rung(Fraction(1, 50), 64, 4),)), table, 4, generator(1, "x"))
    assert harmless is not None
    assert harmless.mean.mean == 0.0


def test_distance_from_the_table_s_best_counts_who_is_not_in_the_cohort() -> None:
    regret = judged(Schedule(), table_of(SKILL, SKILL), POPULATION, generator(1, "x"))
    assert regret is not None
    assert regret.mean.mean == 0.0
    # Of 12 ranks, the best of 4 drawn is 13 x 4 / 5 on average, a step being 0.2 / 11.
    assert regret.behind == pytest.approx((12 - 13 * 4 / 5) * 0.2 / 11)


def test_standard_errors_of_figures() -> None:
    assert area_deviation(np.array([0.5]))[0] == pytest.approx(np.sqrt(1 / 3))
    assert area_deviation(np.array([1.0, 0.2])) == pytest.approx([0.0, np.sqrt(1 / 3)])
    assert share_deviation(np.array([0.9]))[0] == pytest.approx(0.3)


def test_cohorts_are_drawn_without_repetition_within_one() -> None:
    members = drawn_cohorts(np.array([3, 5, 7, 9]), 3, 50, generator(1, "x"))
    assert {len(set(row)) for row in members.tolist()} == {3}
    assert set(members.ravel().tolist()) == {3, 5, 7, 9}
