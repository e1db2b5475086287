"""The batches of a training, of rows of similar length so that they need little padding: pure
arithmetic.

A batch is a function of (seed, batch size, step, subset). Nothing is drawn while training, so a
genome that is cut off and resumed, or promoted, reads what it would have read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from coralx.data.order import Rows
from coralx.rng import generator

WINDOW_BATCHES = 16
"""Rows of similar length are put together within windows of about so many batches. Rows do not
leave their window, so a training has read nearly the rows that the order has up to there."""

WINDOW_ROWS = 32
"""A window holds on average at least so many rows of each stratum: among a few, none may be as
long as those of the other strata."""

PASSES_KEPT = 4
"""Orders in memory. That of a million rows takes 8 MB and about a second to make, and a batch at a
seam reads two."""


class Batches:
    """The batches of one size, of rows that stand in a stratified order.

    The rows of the stage's subset are read from front to back, pass after pass; a batch at the seam
    has the end of one pass and the beginning of the next. Each place of a batch belongs to a
    stratum, as the order says, and that never changes: a batch holds as many rows of each stratum
    as if length did not matter. Which row of the stratum stands there does change: later passes
    deal them anew, and in each pass those of a window are sorted by length, stratum by stratum, so
    that one batch gets the shortest of every stratum, another the next, and so on. Where strata
    differ in length, a batch still holds short and long rows.

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
        window_rows = WINDOW_ROWS * len(np.unique(strata))
        self._window = max(WINDOW_BATCHES, -(-window_rows // batch_size))
        self._ends = sorted({0, len(strata), *(end for end in ends if 0 < end < len(strata))})
        self._seed = seed
        self._order = lru_cache(PASSES_KEPT)(self._computed)

    def rows(self, step: int, subset: int) -> Rows:
        """The rows of batch number `step` (from 0, counted from the genome's birth) in a stage that
        has the first `subset` rows."""
        start = step * self._size
        end = start + self._size
        passes = range(start // subset, (end - 1) // subset + 1)
        return np.concatenate(
            [self.order(n, subset)[max(0, start - n * subset) : end - n * subset] for n in passes]
        )

    def order(self, number: int, subset: int) -> Rows:
        """The rows of a subset as they are read in pass `number` (from 0), shape (subset,)."""
        # The first pass over a smaller subset begins the first pass over all rows, so a genome that
        # is promoted before it has seen its subset once goes on as if it had had all rows at once.
        if number == 0:
            return self._order(0, len(self._strata))[:subset]
        return self._order(number, subset)

    def _computed(self, number: int, subset: int) -> Rows:
        rows, strata = np.arange(subset), self._strata[:subset]
        if number > 0:
            # Both sides are listed stratum by stratum: the places that a stratum has in the order
            # get its rows, in the random order in which they were drawn.
            drawn = generator(self._seed, "pass", subset, number).permutation(subset)
            by_stratum = np.argsort(strata[drawn], kind="stable")
            rows[np.argsort(strata, kind="stable")] = drawn[by_stratum]
        # Batches are counted from birth, so that windows consist of whole ones in every pass.
        batch = (number * subset + np.arange(subset)) // self._size
        window = _windows(batch, self._ends if number == 0 else [0, subset], self._window)
        # Batches get short or long rows by a random rank of their own, or training would go from
        # the shortest rows of each window to the longest. It is the rank of a batch, not of a pass
        # or window, so that both parts of a batch at a seam are of similar length.
        rank = generator(self._seed, "lengths", self._size).random(batch[-1] + 1)[batch]
        # Within each window and stratum, the shortest row goes to the batch of the lowest rank.
        # (lexsort sorts by its last key first.)
        order = np.empty_like(rows)
        shortest_first = np.lexsort((self._lengths[rows], strata, window))
        order[np.lexsort((rank, strata, window))] = rows[shortest_first]
        return order


def _windows(batch: Rows, ends: Sequence[int], batches_each: int) -> Rows:
    """The number of the window that each place is in, from the batch that it is in: windows of
    about `batches_each` batches, of equal size between any two neighbours among the `ends`."""
    window = np.empty_like(batch)
    before = 0
    for start, end in pairwise(ends):
        own = batch[start:end] - batch[start]
        batches = int(own[-1]) + 1
        windows = max(1, round(batches / batches_each))
        window[start:end] = before + own * windows // batches
        before += windows
    return window
