"""What ends training within a stage: explosions, and curves that cannot reach the survivors'."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t

from coralx.records.genomes import Genes
from coralx.records.jobs import Horizon, Job, Watch
from coralx.records.results import Divergence
from coralx.schedule.early_stopping import (
    FEWEST_WINDOWS,
    MARGIN,
    RECENT_ROWS,
    RECENT_STEPS,
    STUDENT,
    WINDOWS,
    curve_of,
    explosion_limit,
    highest_losses,
    loss_within_reach,
    reason_to_stop,
    recent_loss,
    unreachable,
    window_ends,
    windows_in_warmup,
)
from tests.support.factories import make_genome

UNTUNED = 0.7


def make_job(
    steps: int = 80,
    *,
    first: int = 0,
    warmup: int = 0,
    batch_size: int = 8,
    explosion: bool = False,
    survivors: tuple[float, ...] = (),
) -> Job:
    return Job(
        genome=make_genome("a", Genes(batch_size=batch_size)),
        stage="S",
        first_step=first,
        last_step=first + steps,
        horizon=Horizon(10 * steps, warmup),
        data_fraction=1.0,
        checkpoint=None,
        watch=Watch(explosion, survivors),
    )


def first_ending(job: Job, losses: list[float], untuned: float | None = UNTUNED) -> Any:
    """What ends the job, asked after each step as the trainer does."""
    asked = (reason_to_stop(job, losses[:count], untuned) for count in range(1, len(losses) + 1))
    return next((found for found in asked if found is not None), None)


# -- explosions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("untuned", "limit"),
    [(0.0, 1.0), (0.2, 1.2), (0.5, 1.5), (0.7, 2.1), (1.0, 3.0), (1.5, 4.5), (2.5, 5.5), (11, 14)],
)
def test_an_explosion_is_three_times_the_untuned_loss_between_one_and_three_nats_above_it(
    untuned: float, limit: float
) -> None:
    assert explosion_limit(untuned) == pytest.approx(limit)


@pytest.mark.parametrize(("batch_size", "steps"), [(64, 8), (8, 8), (7, 10), (4, 16), (1, 64)])
def test_an_explosion_is_judged_by_eight_steps_and_sixty_four_rows_at_least(
    batch_size: int, steps: int
) -> None:
    assert steps == max(RECENT_STEPS, -(-RECENT_ROWS // batch_size))
    assert recent_loss([9.0] * (steps - 1), batch_size) is None
    assert recent_loss([0.0] * steps + [9.0] * steps, batch_size) == 9.0
    job = make_job(100, batch_size=batch_size, explosion=True)
    assert first_ending(job, [9.0] * 100).step == steps


@given(
    untuned=st.floats(0.05, 4.0),
    end=st.floats(0.0, 1.0),
    pace=st.floats(0.01, 1.0),
    noise=st.floats(0.0, 0.15),
    batch_size=st.integers(1, 64),
    wild=st.lists(st.floats(0.0, 1e6), max_size=3),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None)
def test_a_curve_that_falls_with_noise_is_never_an_explosion(
    untuned: float,
    end: float,
    pace: float,
    noise: float,
    batch_size: int,
    wild: list[float],
    seed: int,
) -> None:
    """From the untuned loss, or after inheritance from below it; with up to three wild batches."""
    rng = np.random.default_rng(seed)
    steps = np.arange(120)
    falling = untuned * (end + (1 - end) * np.exp(-pace * steps))
    losses = falling * np.exp(noise * rng.standard_normal(120))
    place = int(rng.integers(0, 117))
    losses[place : place + len(wild)] = wild
    job = make_job(120, batch_size=batch_size, explosion=True)
    assert first_ending(job, losses.tolist(), untuned) is None


@given(
    untuned=st.floats(0.0, 12.0),
    above=st.floats(0.01, 1e9),
    before=st.integers(0, 60),
    batch_size=st.integers(4, 64),
)
@settings(max_examples=100, deadline=None)
def test_a_loss_that_stays_beyond_the_limit_ends_training_at_once(
    untuned: float, above: float, before: int, batch_size: int
) -> None:
    job = make_job(100, first=50, batch_size=batch_size, explosion=True)
    blown_up = explosion_limit(untuned) + above
    found = first_ending(job, [untuned] * before + [blown_up] * (100 - before), untuned)
    recent = max(8, -(-64 // batch_size))
    # more than half of the steps that the median is taken of; with an even number half will do
    # where the other half is near enough to the limit
    assert max(recent, before + recent // 2) <= found.step - 50 <= max(recent, before + recent)
    assert (found.quantity, found.kind) == ("loss", "exploded")
    assert found.value > explosion_limit(untuned)
    assert found.against == untuned
    assert found.ruins_weights


def test_without_a_watch_or_without_the_untuned_loss_nothing_explodes() -> None:
    assert first_ending(make_job(), [1e9] * 80) is None
    assert first_ending(make_job(explosion=True), [1e9] * 80, None) is None
    assert first_ending(make_job(explosion=True), [1e9] * 80, float("nan")) is None


def test_an_explosion_says_what_it_was_and_what_the_base_has() -> None:
    found = first_ending(make_job(explosion=True), [0.7] * 8 + [2.3125] * 72, 0.7)
    assert found.reason == "training loss exploded (2.31 against 0.7 untuned)"


# -- the curve of a stage ------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_windows_are_equal_to_within_a_step_and_come_as_they_are_completed(
    steps: int, trained: int
) -> None:
    assume(trained <= steps)
    losses = [float(step) for step in range(trained)]
    curve = curve_of(losses, steps)
    if steps < WINDOWS:
        assert curve == ()
        return
    ends = window_ends(steps)
    sizes = np.diff([0, *ends])
    assert ends[-1] == steps
    assert sizes.max() - sizes.min() <= 1
    whole = np.split(np.arange(steps, dtype=float), ends[:-1])
    assert len(curve) == sum(end <= trained for end in ends)
    assert curve == pytest.approx([w.mean() for w in whole][: len(curve)])


def test_the_slowest_survivor_is_found_window_by_window() -> None:
    assert highest_losses([(3.0, 1.0, 2.0), (2.0, 2.0, 1.0)]) == (3.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("first", "warmup", "skipped"), [(0, 0, 0), (0, 1, 1), (0, 10, 1), (0, 11, 2), (40, 45, 1)]
)
def test_windows_that_begin_in_the_warm_up_do_not_count(
    first: int, warmup: int, skipped: int
) -> None:
    assert windows_in_warmup(make_job(80, first=first, warmup=warmup)) == skipped


# -- within reach or not -------------------------------------------------------------------------

CURVES = st.lists(st.floats(0.01, 10.0), min_size=WINDOWS, max_size=WINDOWS)


def test_students_table_is_students() -> None:
    assert sorted(STUDENT) == list(range(FEWEST_WINDOWS - 2, WINDOWS - 2))
    for freedom, value in STUDENT.items():
        assert value == pytest.approx(student_t.ppf(0.95, freedom), abs=5e-5)


@given(CURVES, CURVES, st.integers(FEWEST_WINDOWS, WINDOWS - 1), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_the_optimistic_loss_is_the_bound_of_a_least_squares_prediction(
    own: list[float], other: list[float], seen: int, skipped: int
) -> None:
    """Against the textbook's matrix formula."""
    found = loss_within_reach(own[:seen], other, skipped)
    if seen - skipped < FEWEST_WINDOWS:
        assert found is None
        return
    gaps = np.subtract(own, other)[skipped:seen]
    design = np.column_stack([np.ones(len(gaps)), np.arange(skipped, seen)])
    weights, *_ = np.linalg.lstsq(design, gaps, rcond=None)
    at_end = np.array([1.0, WINDOWS - 1])
    freedom = len(gaps) - 2
    variance = np.sum((gaps - design @ weights) ** 2) / freedom
    error = np.sqrt(variance * (1 + at_end @ np.linalg.inv(design.T @ design) @ at_end))
    expected = other[-1] + at_end @ weights - student_t.ppf(0.95, freedom) * error
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(st.lists(CURVES, min_size=2, max_size=5), st.data())
@settings(max_examples=150, deadline=None)
def test_a_curve_like_a_survivors_is_never_out_of_reach(
    survivors: list[list[float]], data: st.DataObject
) -> None:
    """Wherever a genome is no worse than the slowest survivor was then, it goes on."""
    bar = highest_losses(survivors)
    curve = [data.draw(st.floats(0.0, limit * (1 + MARGIN))) for limit in bar]
    for seen in range(1, WINDOWS):
        assert unreachable(curve[:seen], bar) is None


@given(st.floats(0.01, 10.0), CURVES, st.integers(0, 4))
@settings(max_examples=100, deadline=None)
@example(1.0, [1.0] * WINDOWS, 0)
def test_a_gap_that_will_have_closed_by_the_stages_end_is_within_reach(
    gap: float, survivors: list[float], skipped: int
) -> None:
    closing = [1 - window / (WINDOWS - 1) for window in range(WINDOWS)]
    curve = [loss + gap * share for loss, share in zip(survivors, closing, strict=True)]
    for seen in range(1, WINDOWS):
        assert unreachable(curve[:seen], survivors, skipped) is None


@given(
    st.lists(st.floats(0.3, 3.0), min_size=WINDOWS, max_size=WINDOWS),
    st.floats(1.0, 5.0),
    st.integers(0, 3),
)
@settings(max_examples=100, deadline=None)
def test_what_a_windows_rows_do_to_everyones_loss_hides_no_steady_gap(
    survivors: list[float], gap: float, skipped: int
) -> None:
    """The survivors' own curve may be as rough as it likes; a genome that stays above it by as
    much is stopped as soon as four windows have told so."""
    curve = [loss + gap for loss in survivors]
    assert unreachable(curve[: FEWEST_WINDOWS - 1 + skipped], survivors, skipped) is None
    found = unreachable(curve[: FEWEST_WINDOWS + skipped], survivors, skipped)
    assert found == pytest.approx(survivors[-1] + gap, rel=1e-6)


def test_one_window_that_is_far_off_leaves_room_for_hope() -> None:
    survivors = [1.0] * WINDOWS
    assert unreachable([1.5, 1.5, 1.5, 1.5], survivors) is not None
    assert unreachable([1.5, 1.5, 1.5, 2.5], survivors) is None


def test_an_unreachable_curve_ends_training_at_a_windows_end() -> None:
    survivors = (0.6,) * WINDOWS
    job = make_job(80, first=20, survivors=survivors)
    found = first_ending(job, [0.7] * 80)
    assert found is not None
    assert found.value == pytest.approx(0.7)
    assert replace(found, value=0.7) == Divergence(60, "loss", "unreachable", 0.7, 0.6)
    assert not found.ruins_weights
    assert found.reason == "training loss cannot reach the survivors' (0.7 at best against 0.6)"
    warming = replace(job, horizon=Horizon(800, 31))
    assert first_ending(warming, [0.7] * 80).step == 80


def test_a_stage_that_is_nearly_over_is_let_go_on() -> None:
    """A gap that opens only in the last window, or a stage of fewer steps than windows."""
    survivors = (0.6,) * WINDOWS
    assert first_ending(make_job(80, survivors=survivors), [0.6] * 70 + [9.0] * 10) is None
    assert first_ending(make_job(7, survivors=survivors), [9.0] * 7) is None
