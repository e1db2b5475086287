"""Figures of language models: by hand, and their intervals against a plain bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.metrics.bootstrap import CHUNK, RESAMPLES, drawn_figures
from coralx.metrics.compute import figures as run_figures
from coralx.metrics.intervals import intervals
from coralx.metrics.language_model import figures
from coralx.metrics.row_scores import RowScores
from coralx.records.results import Interval
from coralx.rng import generator


def scores(rows: int, seed: int) -> np.ndarray:
    """Completions of one to thirty tokens, the longer ones easier."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 31, size=rows)
    return np.column_stack([counts * (0.5 + 2 * rng.random(rows) / counts), counts])


def language_intervals(
    table: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    return intervals({"": RowScores(table)}, seed, resamples)


def plain_interval(drawn: list[float]) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def test_the_loss_of_three_rows_by_hand_weighs_tokens_not_rows() -> None:
    found = figures(np.array([[2.0, 1.0], [3.0, 6.0], [0.5, 4.0]]))
    assert found["eval_loss"] == pytest.approx(5.5 / 11)
    assert found["perplexity"] == pytest.approx(math.exp(0.5))


def test_a_uniform_guess_has_the_perplexity_of_its_choices() -> None:
    lengths = np.array([1.0, 5.0, 17.0])
    found = figures(np.column_stack([lengths * math.log(32_000), lengths]))
    assert found["perplexity"] == pytest.approx(32_000)


def test_certainty_costs_nothing() -> None:
    assert figures(np.array([[0.0, 3.0]])) == {"eval_loss": 0.0, "perplexity": 1.0}


def test_the_perplexity_of_several_tasks_is_that_of_all_their_tokens() -> None:
    """Not a mean of exponentials, which one hard task of few tokens would decide."""
    said = {
        "long": RowScores(np.array([[100.0, 100.0], [80.0, 80.0]])),
        "short": RowScores(np.array([[12.0, 2.0]])),
    }
    found = run_figures(said)
    assert found["perplexity"] == pytest.approx(math.exp(192 / 182))
    assert found["perplexity@short"] == pytest.approx(math.exp(6))
    assert found["eval_loss"] == pytest.approx((1 + 6) / 2)  # each task counts alike
    ends = intervals(said, 3, 200)["perplexity"]
    drawn = drawn_figures({"it": said}, 3, 200)["it"]["perplexity"]
    assert (ends.low, ends.high) == plain_interval(drawn.tolist())
    assert math.e <= ends.low <= ends.value <= ends.high
    assert "perplexity" not in run_figures({"": RowScores(np.eye(2), np.array([0, 1]))})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_figure_is_made_of_a_likelihood_that_is_not_finite(value: float) -> None:
    broken = np.array([[1.0, 2.0], [value, 1.0]])
    assert figures(broken) == {"eval_loss": None, "perplexity": None}
    nothing = Interval(None, None, None)
    assert language_intervals(broken, seed=0) == {"eval_loss": nothing, "perplexity": nothing}


def test_a_perplexity_beyond_any_float_is_none_and_the_loss_stays() -> None:
    found = figures(np.array([[7200.0, 10.0]]))
    assert found == {"eval_loss": 720.0, "perplexity": None}
    ends = language_intervals(np.array([[7200.0, 10.0], [7300.0, 10.0]]), seed=0)
    assert ends["perplexity"] == Interval(None, None, None)
    assert ends["eval_loss"] == Interval(725.0, 720.0, 730.0)


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.integers(1, 4096)).map(lambda row: (row[0], float(row[1]))),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_perplexity_is_the_exponential_of_the_loss_and_lies_among_the_rows(
    rows: list[tuple[float, float]],
) -> None:
    found = figures(np.array(rows))
    each = [loss / count for loss, count in rows]
    loss = found["eval_loss"]
    assert loss is not None
    assert min(each) * (1 - 1e-9) <= loss <= max(each) * (1 + 1e-9)
    if found["perplexity"] is not None:
        assert found["perplexity"] == math.exp(loss)
        assert found["perplexity"] >= 1
    else:
        assert loss > 709


@pytest.mark.parametrize(("rows", "resamples"), [(1, 20), (7, 300), (90, 200)])
def test_intervals_are_those_of_rows_drawn_one_by_one(rows: int, resamples: int) -> None:
    table = scores(rows, seed=rows)
    found = language_intervals(table, seed=5, resamples=resamples)
    shares = np.full(rows, 1.0 / rows)
    counts = generator(5, "bootstrap").multinomial(rows, shares, size=resamples)
    drawn = [figures(np.repeat(table, times, axis=0)) for times in counts]
    for name, value in figures(table).items():
        low, high = plain_interval([one[name] for one in drawn])  # type: ignore[misc]
        assert found[name].value == value
        assert (found[name].low, found[name].high) == pytest.approx((low, high))


def test_intervals_are_the_same_in_several_chunks() -> None:
    """Drawn in one piece, or in pieces that keep memory small."""
    rows = CHUNK // 12 + 1
    table = scores(rows, seed=1)
    found = language_intervals(table, seed=2, resamples=15)
    counts = generator(2, "bootstrap").multinomial(rows, np.full(rows, 1.0 / rows), size=15)
    drawn = (counts @ table[:, 0]) / (counts @ table[:, 1])
    assert (found["eval_loss"].low, found["eval_loss"].high) == pytest.approx(
        plain_interval(drawn.tolist())
    )


def test_intervals_hold_the_figure_and_narrow_with_more_rows() -> None:
    few, many = (language_intervals(scores(rows, seed=1), seed=0) for rows in (40, 2000))
    for name, wide in few.items():
        assert wide.low < wide.value < wide.high
        assert many[name].high - many[name].low < wide.high - wide.low


def test_intervals_of_the_perplexity_are_those_of_the_loss_exponentiated() -> None:
    """Up to how percentiles lie between two draws."""
    found = language_intervals(scores(300, seed=3), seed=0)
    loss, perplexity = found["eval_loss"], found["perplexity"]
    for ends in ((loss.low, perplexity.low), (loss.high, perplexity.high)):
        assert math.exp(ends[0]) == pytest.approx(ends[1], rel=1e-3)  # type: ignore[arg-type]


def test_intervals_depend_on_the_seed_alone() -> None:
    table = scores(50, seed=1)
    assert language_intervals(table, seed=3) == language_intervals(table, seed=3)
    assert language_intervals(table, seed=3) != language_intervals(table, seed=4)


def test_rows_are_drawn_whole_so_long_rows_alike_leave_no_doubt() -> None:
    alike = np.tile([[12.0, 8.0]], (30, 1))
    found = language_intervals(alike, seed=0)
    assert found["eval_loss"] == Interval(1.5, 1.5, 1.5)
