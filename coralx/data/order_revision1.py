"""The order of rows and batches of runs that began under revision 1 (`run_facts.REVISION`).

Kept as it was, since a run that is resumed must read what it would have read. New runs go by
`order.py` and `batches.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from coralx.data.order import Rows
from coralx.rng import generator

WINDOW_BATCHES = 16
"""Length bucketing sorts within windows of this many batches."""


def stratified_order(strata: Sequence[Hashable], rng: np.random.Generator) -> Rows:
    """Row numbers, shape (rows,), such that each prefix holds every stratum's share of it to
    within one row.

    Which row of a stratum comes next is random; which stratum comes next is chosen by Tijdeman's
    algorithm for the chairman assignment problem (Discrete Mathematics 32, 1980): among the strata
    that may receive a place without getting ahead of their share, the one that would first fall
    behind it.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(row)
    members = [rng.permutation(np.asarray(rows, dtype=np.int64)) for rows in groups.values()]
    sizes = np.asarray([len(rows) for rows in members])
    total, kinds = int(sizes.sum()), len(members)
    if kinds <= 1:
        return members[0] if members else np.empty(0, dtype=np.int64)
    slack = 1.0 / (2 * kinds - 2)
    share = sizes / total
    given = np.zeros(kinds, dtype=np.int64)
    order = np.empty(total, dtype=np.int64)
    for place in range(total):
        owed = share * (place + 1) - given
        may = (owed >= slack - 1e-9) & (given < sizes)
        if not may.any():
            may = given < sizes
        deadline = np.where(may, (1.0 - slack - owed) / share, np.inf)
        kind = int(np.argmin(deadline))
        order[place] = members[kind][given[kind]]
        given[kind] += 1
    return order


def bucketed_order(
    order: Rows, lengths: Sequence[int], batch_size: int, boundaries: Sequence[int], seed: int
) -> Rows:
    """The order with rows of similar length side by side, so that batches need little padding.

    Rows move only inside fixed windows that end at subset `boundaries` (in rows): every subset
    keeps its rows. Inside a window the batches are shuffled, by (seed, batch size, window) alone.
    """
    edges = sorted({0, len(order), *(edge for edge in boundaries if 0 < edge < len(order))})
    width = WINDOW_BATCHES * batch_size
    windows = [
        (start, min(start + width, end))
        for begin, end in pairwise(edges)
        for start in range(begin, end, width)
    ]
    length_of = np.asarray(lengths)
    pieces = []
    for start, end in windows:
        window = order[start:end]
        window = window[np.argsort(length_of[window], kind="stable")]
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        # A short last batch would shift all that follow it, so it stays last.
        full = len(batches) - (1 if len(window) % batch_size else 0)
        shuffled = generator(seed, "buckets", batch_size, start).permutation(full)
        pieces += [batches[i] for i in shuffled] + batches[full:]
    return np.concatenate(pieces) if pieces else order


def split_off(order: Rows, fractions: Sequence[float]) -> list[Rows]:
    """Cut an order into one part for each fraction and, last, what remains.

    Each part of a stratified order is itself stratified, and has at least one row.
    """
    parts = []
    start = 0
    for fraction in fractions:
        end = start + max(1, round(fraction * len(order)))
        parts.append(order[start:end])
        start = end
    return [*parts, order[start:]]


class Batches:
    """As `batches.Batches`, but rows of similar length are put together whatever their strata, and
    every pass has the same batches."""

    def __init__(
        self,
        strata: Rows,
        lengths: Sequence[int],
        batch_size: int,
        ends: Sequence[int],
        seed: int,
    ) -> None:
        self._order = bucketed_order(np.arange(len(strata)), lengths, batch_size, ends, seed)
        self._size = batch_size

    def rows(self, step: int, subset: int) -> Rows:
        return self._order[(step * self._size + np.arange(self._size)) % subset]

    def order(self, number: int, subset: int) -> Rows:
        return self._order[:subset]
