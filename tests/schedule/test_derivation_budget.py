"""How many looks a run's training pays for."""

from __future__ import annotations

from fractions import Fraction

import pytest

from coralx.config.metric_catalogue import TaskKind
from coralx.schedule.derivation_budget import (
    affordable_looks,
    group_costs,
    look_cost,
    round_size,
    sample_cost,
)

TENTH = Fraction(1, 10)
ENCODER: TaskKind = "sequence-classification"


def test_a_look_costs_the_rows_that_the_last_stage_scores() -> None:
    assert look_cost(ENCODER, {"train": 400, "validation": 100}) == 35
    rows = {"train": 400, "validation": 100, "attacks": 20, "clean hold-out": 30, "test": 500}
    assert (
        look_cost(ENCODER, rows) == Fraction(7, 20) * 125
    )  # one half of attacks and hold-out is for the final measurement
    assert look_cost(ENCODER, rows, tokens_per_attack=32) == Fraction(7, 20) * 125 + Fraction(32, 3)


def test_a_causal_model_s_rows_cost_more() -> None:
    assert look_cost("sft", {"train": 400, "validation": 100}) == 50
    assert look_cost("sft", {"train": 400, "validation": 100}, scores_in_full=True) == 125


def test_a_stage_scores_a_sample() -> None:
    rows = {"train": 400, "validation": 100}
    assert sample_cost(ENCODER, rows, 40) == 14
    assert sample_cost(ENCODER, rows, 512) == look_cost(ENCODER, rows)
    assert sample_cost(ENCODER, rows, 40, scores_in_full=True) == 35


def test_a_simulation_has_a_validation_split_of_a_fifth() -> None:
    assert look_cost(ENCODER, {"train": 400, "validation": 0}) == look_cost(
        ENCODER, {"train": 400, "validation": 80}
    )


@pytest.mark.parametrize(("trained", "looks"), [(0, 0), (399, 0), (400, 1), (799, 1), (4000, 10)])
def test_looks_cost_no_more_than_their_share(trained: int, looks: int) -> None:
    assert affordable_looks(TENTH, Fraction(trained), Fraction(40)) == looks


def test_rounds_are_small_where_looks_are_few() -> None:
    assert [round_size(looks) for looks in (0, 1, 7, 8, 12, 40, 1000)] == [2, 2, 2, 2, 3, 8, 8]


def test_a_group_is_found_by_trying_each_against_the_whole() -> None:
    row = Fraction(9, 20) * 64 / 40  # in looks: what one trial costs
    assert group_costs(4, Fraction(40)) == (5 * row, 2 * row)
    assert group_costs(0, Fraction(40)) == (13 * row, 2 * row)
