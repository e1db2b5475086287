"""The one order of the rows: representative prefixes, nested subsets, parts split off before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.data.examples import Example
from coralx.data.order import (
    apportioned,
    part_sizes,
    stratified_order,
    stratified_parts,
    subset_size,
)
from coralx.data.splits import _cut

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


# -- several groups of strata ----------------------------------------------------------------------


def farthest(kinds: Sequence[object]) -> Fraction:
    """By how many rows any prefix is off any kind's share of it, at most."""
    totals, seen, worst = Counter(kinds), Counter[object](), Fraction(0)
    for place, kind in enumerate(kinds, start=1):
        seen[kind] += 1
        for other, total in totals.items():
            worst = max(worst, abs(seen[other] - Fraction(place * total, len(kinds))))
    return worst


def in_groups(groups: list[list[int]]) -> tuple[list[tuple[int, int]], list[int]]:
    """Stratum and group of each row; `groups` tells the rows of each stratum in them."""
    strata = [
        (group, stratum)
        for group, counts in enumerate(groups)
        for stratum, count in enumerate(counts)
        for _ in range(count)
    ]
    return strata, [group for group, _ in strata]


@pytest.mark.parametrize(
    "groups",
    [
        [[300, 100], [50, 150]],
        [[20] * 10, [20] * 10],
        [[7] * 8, [90, 10], [31]],
        [[400, 30], [5, 5, 5], [60, 1], [2]],
    ],
)
def test_every_prefix_holds_each_group_s_share_too(groups: list[list[int]]) -> None:
    strata, of = in_groups(groups)
    order = stratified_order(strata, np.random.default_rng(0), of)
    assert farthest([strata[row] for row in order]) <= 1
    assert farthest([of[row] for row in order]) <= 1


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_an_order_by_groups_has_every_row_once(groups: list[list[int]]) -> None:
    strata = [
        (g, s) for g, sizes in enumerate(groups) for s, n in enumerate(sizes) for _ in range(n)
    ]
    of = [group for group, _ in strata]
    order = stratified_order(strata, np.random.default_rng(0), of)
    assert sorted(order.tolist()) == list(range(len(strata)))
    assert farthest([strata[row] for row in order]) <= 1


# -- parts -----------------------------------------------------------------------------------------

fractions = st.lists(st.floats(0.01, 0.45), min_size=1, max_size=2)


@given(sizes, fractions, st.booleans(), seeds)
@settings(max_examples=80, deadline=None)
def test_every_prefix_of_every_part_is_within_one_row(
    counts: list[int], shares: list[float], is_rest_used: bool, seed: int
) -> None:
    strata = strata_of(counts, seed)
    wanted = part_sizes(len(strata), shares)
    rng = np.random.default_rng(seed)
    parts = stratified_parts(strata, wanted, rng, is_rest_used=is_rest_used)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(strata)))
    assert [len(part) for part in parts[:-1]] == wanted
    assert all(farthest([strata[row] for row in part]) < 1 for part in parts)
    for part in parts[:-1]:
        held = Counter(strata[row] for row in part)
        for kind, total in Counter(strata).items():
            assert abs(held[kind] - Fraction(len(part) * total, len(strata))) < 1


@pytest.mark.parametrize(
    "counts", [[700, 300], [610, 340, 50], [97, 101, 103, 107, 109, 113], [30] * 12, [200, 9, 40]]
)
def test_every_prefix_of_every_part_keeps_the_shares_of_the_whole_too(counts: list[int]) -> None:
    strata, total = strata_of(counts, 3), sum(counts)
    for part in stratified_parts(strata, part_sizes(total, [0.1, 0.17]), np.random.default_rng(1)):
        kinds = np.array(strata)[part]
        places = np.arange(1, len(part) + 1)
        for kind, count in enumerate(counts):
            assert np.abs(np.cumsum(kinds == kind) - places * count / total).max() < 1


@pytest.mark.parametrize(
    ("counts", "share", "limit"),
    [
        ([67, 133], 0.1, 150),
        ([51, 144, 5], 0.1, 150),
        ([91, 96, 13], 0.2, 100),
        ([300, 400, 300], 0.2, 50),
        ([523, 198, 251, 28], 0.2, 50),
        ([610, 340, 50], 0.1, 799),
    ],
)
def test_a_limit_keeps_the_shares_of_the_whole_too(
    counts: list[int], share: float, limit: int
) -> None:
    strata, total = strata_of(counts, 3), sum(counts)
    rows = [Example(str(row), label) for row, label in enumerate(strata)]
    train, *_ = _cut(rows, (share, share), limit, seed=1)
    assert len(train) == limit
    kinds, places = np.array(strata)[train], np.arange(1, limit + 1)
    assert farthest(kinds.tolist()) < 1
    for kind, count in enumerate(counts):
        assert np.abs(np.cumsum(kinds == kind) - places * count / total).max() < 1


@given(sizes, st.data(), seeds)
@settings(max_examples=80, deadline=None)
def test_whatever_the_population_no_more_rows_are_taken_than_there_are(
    counts: list[int], data: st.DataObject, seed: int
) -> None:
    population = [count + data.draw(st.integers(0, 200)) for count in counts]
    size = data.draw(st.integers(1, sum(counts)))
    table = apportioned(counts, [size], is_rest_used=False, population=population)
    assert table.sum() == size
    assert (table[:, 0] <= counts).all()
    order = stratified_order(
        strata_of(counts, seed),
        np.random.default_rng(seed),
        population=dict(enumerate(population)),
    )
    assert farthest([strata_of(counts, seed)[row] for row in order]) < 1


@given(st.lists(st.integers(15, 300), min_size=2, max_size=8), st.floats(0.1, 0.4))
@settings(max_examples=80, deadline=None)
def test_what_is_left_has_the_whole_s_shares_within_one_row(
    counts: list[int], share: float
) -> None:
    """Of strata that are not rare: of a rare one, a part has a row where its share is less."""
    total = sum(counts)
    wanted = part_sizes(total, [share, share / 2 + 0.05])
    left = np.asarray(counts) - apportioned(counts, wanted).sum(axis=1)
    assert np.abs(left - np.asarray(counts) * left.sum() / total).max() < 1


@pytest.mark.parametrize("rare", [3, 4, 5])
def test_three_rows_of_a_stratum_are_one_for_each_part(rare: int) -> None:
    wanted = part_sizes(990 + rare, [0.1, 0.1])
    table = apportioned([900, 90, rare], wanted)
    assert table[2].tolist() == [1, 1]
    assert table.sum(axis=0).tolist() == wanted


@pytest.mark.parametrize(
    ("rows", "shares", "expected"),
    [(100, [0.1, 0.25], [10, 25]), (3, [0.1, 0.1], [1, 1]), (1, [0.1, 0.1], [1, 0]), (9, [], [])],
)
def test_a_part_has_a_row_where_there_is_one(
    rows: int, shares: list[float], expected: list[int]
) -> None:
    assert part_sizes(rows, shares) == expected
