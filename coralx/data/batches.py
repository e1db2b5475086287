"""The batches of a training, of rows of similar length: pure arithmetic.

A batch is a function of (seed, batch size, step, subset): nothing is drawn while training, so
whatever goes on with a genome reads what it would have read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from coralx.data.order import Rows
from coralx.rng import generator

WINDOW_BATCHES = 16
"""Rows of similar length are looked for within windows of about so many batches."""

WINDOW_ROWS = 32
"""And within so many rows of each stratum, on average: among a few, none may be as long as those
of the others."""

PASSES_KEPT = 4
"""Orders of a million rows take 8 MB each and about a second; a batch reads two at a seam."""


class Batches:
    """The batches of one size, of rows that stand in a stratified order.

    The rows are read from front to back, again and again inside the stage's subset; a batch at the
    seam has the end of one pass and the beginning of the next. Which stratum each place of a batch
    is for never changes, so a batch holds as many rows of each as without a look at lengths. Which
    of its rows stands there does: in later passes they are dealt anew, and in each pass those of a
    window are sorted by length, stratum by stratum, such that one batch gets the shortest of all
    strata, another the next, and so on. Where length goes with the stratum, batches hold short and
    long rows all the same.

    `strata` and `lengths`, shape (rows,). No row of the first pass crosses one of the subsets'
    `ends` (in rows), so the first pass of a subset is the beginning of that of all rows.
    """

    def __init__(
        self,
        strata: Rows,
        lengths: Sequence[int],
        batch_size: int,
        ends: Sequence[int],
        seed: int,
    ) -> None:
        self._strata = strata
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._size = batch_size
        rows_wanted = WINDOW_ROWS * len(np.unique(strata))
        self._window = max(WINDOW_BATCHES, -(-rows_wanted // batch_size))
        self._ends = sorted({0, len(strata), *(end for end in ends if 0 < end < len(strata))})
        self._seed = seed
        self._order = lru_cache(PASSES_KEPT)(self._computed)

    def rows(self, step: int, subset: int) -> Rows:
        """Those of batch number `step` (from 0, counted from the genome's birth) in a stage that
        has the first `subset` rows."""
        start = step * self._size
        end = start + self._size
        passes = range(start // subset, (end - 1) // subset + 1)
        return np.concatenate(
            [self.order(n, subset)[max(0, start - n * subset) : end - n * subset] for n in passes]
        )

    def order(self, number: int, subset: int) -> Rows:
        """The rows of a subset as they are read in pass `number` (from 0), shape (subset,)."""
        if number == 0:  # one for all subsets
            return self._order(0, len(self._strata))[:subset]
        return self._order(number, subset)

    def _computed(self, number: int, subset: int) -> Rows:
        rows, strata = np.arange(subset), self._strata[:subset]
        if number > 0:
            drawn = generator(self._seed, "pass", subset, number).permutation(subset)
            by_stratum = np.argsort(strata[drawn], kind="stable")
            rows[np.argsort(strata, kind="stable")] = drawn[by_stratum]
        # Batches are counted from birth, so that windows consist of whole ones in every pass.
        batch = (number * subset + np.arange(subset)) // self._size
        window = _windows(batch, self._ends if number == 0 else [0, subset], self._window)
        # Of a batch, not of a pass or window: the two parts of a batch at a seam are alike.
        turn = generator(self._seed, "lengths", self._size).random(batch[-1] + 1)[batch]
        order = np.empty_like(rows)
        shortest_first = np.lexsort((self._lengths[rows], strata, window))
        order[np.lexsort((turn, strata, window))] = rows[shortest_first]
        return order


def _windows(batch: Rows, ends: Sequence[int], wanted: int) -> Rows:
    """The number of the window that each place is in, for the batch that it is in: about `wanted`
    batches, in windows of equal size between any two of the `ends`."""
    window = np.empty_like(batch)
    before = 0
    for start, end in pairwise(ends):
        own = batch[start:end] - batch[start]
        batches = int(own[-1]) + 1
        windows = max(1, round(batches / wanted))
        window[start:end] = before + own * windows // batches
        before += windows
    return window
