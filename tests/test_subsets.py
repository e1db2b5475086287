"""The one order of the rows: representative prefixes, nested subsets, batches."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.data.subsets import (
    WINDOW_BATCHES,
    Rows,
    batch_rows,
    bucketed_order,
    split_off,
    stratified_order,
    subset_size,
)

sizes = st.lists(st.integers(1, 60), min_size=2, max_size=6)
seeds = st.integers(0, 2**32)


def strata_of(counts: list[int], seed: int) -> list[int]:
    """A stratum for each row, shuffled."""
    rows = [kind for kind, count in enumerate(counts) for _ in range(count)]
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


# -- the order -----------------------------------------------------------------------------------


@given(sizes, seeds)
@settings(max_examples=80, deadline=None)
def test_every_prefix_holds_each_stratum_s_share_within_one_row(
    counts: list[int], seed: int
) -> None:
    strata = strata_of(counts, seed)
    order = stratified_order(strata, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(strata)))
    totals, seen = Counter(strata), Counter[int]()
    for place, row in enumerate(order, start=1):
        seen[strata[row]] += 1
        for kind, total in totals.items():
            assert abs(seen[kind] - Fraction(place * total, len(strata))) < 1


@pytest.mark.parametrize("counts", [[1, 999], [1, 1, 498], [333, 333, 334], [2, 3, 5, 7, 11, 400]])
def test_rare_strata_are_spread_over_the_order(counts: list[int]) -> None:
    strata = strata_of(counts, 1)
    order = stratified_order(strata, np.random.default_rng(0))
    kinds = np.array(strata)[order]
    share = np.array(counts) / len(strata)
    places = np.arange(1, len(strata) + 1)
    for kind, wanted in enumerate(share):
        assert np.abs(np.cumsum(kinds == kind) - wanted * places).max() < 1


def test_order_is_a_function_of_the_generator_and_draws_rows_at_random() -> None:
    strata = ["no", "yes"] * 50
    orders = [stratified_order(strata, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert orders[0].tolist() == orders[1].tolist()
    assert orders[0].tolist() != orders[2].tolist()
    assert orders[0].tolist() != sorted(orders[0].tolist())


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_one_stratum_or_none_is_a_plain_permutation(rows: int) -> None:
    order = stratified_order(["same"] * rows, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(rows))


@pytest.mark.parametrize(
    ("rows", "fraction", "size"),
    [(100, 0.29, 29), (100, 0.07, 7), (1000, 0.05, 50), (3, 0.05, 1), (7, 0.5, 4), (7, 1.0, 7)],
)
def test_subset_is_rounded_up_exactly(rows: int, fraction: float, size: int) -> None:
    assert subset_size(rows, fraction) == size


# -- length buckets ------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 9), st.lists(st.integers(1, 400), max_size=4), seeds)
@settings(max_examples=60, deadline=None)
def test_bucketing_permutes_and_keeps_every_subset_s_rows(
    rows: int, batch_size: int, boundaries: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    order: Rows = rng.permutation(rows)
    lengths = rng.integers(1, 100, rows).tolist()
    bucketed = bucketed_order(order, lengths, batch_size, boundaries, seed)
    assert sorted(bucketed.tolist()) == list(range(rows))
    for edge in boundaries:
        assert set(bucketed[:edge].tolist()) == set(order[:edge].tolist())
    again = bucketed_order(order, lengths, batch_size, boundaries, seed)
    assert bucketed.tolist() == again.tolist()


def test_rows_move_inside_their_window_only() -> None:
    order: Rows = np.arange(200)
    lengths = np.random.default_rng(0).integers(1, 100, 200).tolist()
    bucketed = bucketed_order(order, lengths, 4, [], 0)
    width = 4 * WINDOW_BATCHES
    for start in range(0, 200, width):
        assert set(bucketed[start : start + width]) == set(order[start : start + width])


def test_batches_of_a_bucketed_order_hold_rows_of_similar_length() -> None:
    order: Rows = np.arange(WINDOW_BATCHES * 4)
    lengths = np.random.default_rng(0).permutation(len(order))
    batches = lengths[bucketed_order(order, lengths.tolist(), 4, [], 0)].reshape(-1, 4)
    assert (np.ptp(batches, axis=1) == 3).all()
    assert batches[:, 0].tolist() != sorted(batches[:, 0].tolist())


def test_buckets_before_a_boundary_do_not_depend_on_what_follows() -> None:
    order: Rows = np.arange(300)
    lengths = np.random.default_rng(0).integers(1, 100, 300)
    longer = bucketed_order(order, lengths.tolist(), 4, [100, 200], 0)
    changed = np.concatenate([lengths[:100], lengths[100:][::-1]])
    other = bucketed_order(order, changed.tolist(), 4, [100], 0)
    assert longer[:100].tolist() == other[:100].tolist()


# -- batches -------------------------------------------------------------------------------------


def test_row_j_of_batch_t_wraps_inside_the_subset() -> None:
    order: Rows = np.array([5, 3, 9, 1, 7, 0, 2, 4, 6, 8])
    assert batch_rows(order, 0, 4, 5).tolist() == [5, 3, 9, 1]
    assert batch_rows(order, 1, 4, 5).tolist() == [7, 5, 3, 9]
    assert batch_rows(order, 2, 4, 5).tolist() == [1, 7, 5, 3]
    assert batch_rows(order, 0, 4, 3).tolist() == [5, 3, 9, 5]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 32), st.integers(0, 10**6), seeds)
def test_batch_lies_in_the_subset_and_equals_the_full_run_s_before_it_wraps(
    rows: int, subset: int, batch_size: int, step: int, seed: int
) -> None:
    order: Rows = np.random.default_rng(seed).permutation(rows)
    subset = min(subset, rows)
    batch = batch_rows(order, step, batch_size, subset)
    assert len(batch) == batch_size
    assert set(batch.tolist()) <= set(order[:subset].tolist())
    within = subset // batch_size
    for early in range(min(within, 5)):
        staged = batch_rows(order, early, batch_size, subset)
        assert staged.tolist() == batch_rows(order, early, batch_size, rows).tolist()


def test_one_pass_reads_every_row_of_the_subset_once() -> None:
    order: Rows = np.random.default_rng(0).permutation(40)
    read = np.concatenate([batch_rows(order, step, 4, 20) for step in range(5)])
    assert read.tolist() == order[:20].tolist()


# -- splits --------------------------------------------------------------------------------------


@given(st.integers(20, 400), st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3), seeds)
def test_split_off_partitions_an_order_into_parts_of_the_fractions(
    rows: int, fractions: list[float], seed: int
) -> None:
    order: Rows = np.random.default_rng(seed).permutation(rows)
    *parts, rest = split_off(order, fractions)
    assert np.concatenate([*parts, rest]).tolist() == order.tolist()
    for part, fraction in zip(parts, fractions, strict=True):
        assert len(part) >= 1
        assert abs(len(part) - fraction * rows) <= 1


def test_parts_of_a_stratified_order_are_stratified() -> None:
    strata = ["no"] * 300 + ["yes"] * 100
    order = stratified_order(strata, np.random.default_rng(0))
    for part in split_off(order, [0.1, 0.2]):
        positive = sum(strata[row] == "yes" for row in part)
        assert abs(positive - len(part) / 4) < 2
