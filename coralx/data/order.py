"""The one order of the training rows, its nested subsets, and the parts split off before it: pure
arithmetic.

Every prefix of an order has the whole's proportions to within one row, so subsets nest and stay
representative.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


# -- the order -------------------------------------------------------------------------------------


def stratified_order(
    strata: Sequence[Hashable],
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
    whole: Mapping[Hashable, int] | None = None,
) -> Rows:
    """Row numbers, shape (rows,), such that each prefix holds every stratum's share of it to
    within one row; and every group's, where the rows of each stratum are of one of several groups;
    and the share in a `whole` (rows by stratum) that the rows were cut from, where that can be.

    Which row of a stratum comes next is random; which stratum comes next is not.
    """
    members = {stratum: rng.permutation(rows) for stratum, rows in _rows_by_stratum(strata).items()}
    groups = [None] * len(strata) if groups is None else groups
    group_of = [groups[rows[0]] for rows in members.values()]
    number = {group: place for place, group in enumerate(dict.fromkeys(group_of))}
    total = len(strata)
    tightness = total if len(number) > 1 else max(1, 2 * len(members) - 2)
    shares = [[Share(len(rows), total, tightness)] for rows in members.values()]
    if whole is not None:
        every = sum(whole.values())
        for share, stratum in zip(shares, members, strict=True):
            share.append(Share(whole[stratum], every, every))
    numbers = [number[group] for group in group_of]
    turns = _turns(shares, numbers)
    if whole is not None and not _is_even(turns, [len(rows) for rows in members.values()]):
        turns = _turns([share[:1] for share in shares], numbers)
    order = np.empty(total, dtype=np.int64)
    order[np.argsort(turns, kind="stable")] = np.concatenate([*members.values(), order[:0]])
    return order


def _rows_by_stratum(strata: Sequence[Hashable]) -> dict[Hashable, Rows]:
    found: dict[Hashable, list[int]] = {}
    for row, stratum in enumerate(strata):
        found.setdefault(stratum, []).append(row)
    return {stratum: np.asarray(rows, dtype=np.int64) for stratum, rows in found.items()}


class Share(NamedTuple):
    """So many `rows` of a `total`, from which a prefix may be off by 1 - 1 / `tightness` rows."""

    rows: int
    total: int
    tightness: int

    def bounds(self, row: int) -> tuple[int, int]:
        """The first and the last place that row number `row` may have."""
        first = -(-(row * self.tightness + 1) * self.total // (self.rows * self.tightness)) - 1
        last = ((row + 1) * self.tightness - 1) * self.total // (self.rows * self.tightness)
        return first, last


def _bounds(shares: Sequence[Share], row: int) -> tuple[int, int]:
    found = [share.bounds(row) for share in shares]
    return max(first for first, _ in found), min(last for _, last in found)


def _turns(shares: Sequence[Sequence[Share]], group_of: Sequence[int]) -> Rows:
    """Whose turn each place of the order is, by number of the stratum. Each has a share of the rows
    and perhaps of more; `group_of` tells its group.

    Tijdeman's algorithm for the chairman assignment problem (Discrete Mathematics 32, 1980): of the
    strata that may have a place without getting ahead of their share, that which would first fall
    behind it. No stratum is off by more than 1 - 1 / (2k - 2) rows. That more shares or groups can
    be kept to a row as well is no theorem (of random orders, 2 of 12,000 with groups were off
    by a row at some place, and 92 of 4,500 with a whole, by two at most): then a bound gives way.
    """
    total, groups = sum(own.rows for own, *_ in shares), range(len(set(group_of)))
    rows_of = [0 for _ in groups]
    for (own, *_), group in zip(shares, group_of, strict=True):
        rows_of[group] += own.rows
    group_shares = [[Share(rows, total, total)] for rows in rows_of]
    group_bounds = [_bounds(share, 0) for share in group_shares]
    early: list[list[tuple[int, int, int]]] = [[] for _ in groups]
    due: list[list[tuple[int, int]]] = [[] for _ in groups]
    for stratum, (share, group) in enumerate(zip(shares, group_of, strict=True)):
        heappush(early[group], (*_bounds(share, 0), stratum))
    given, group_given = [0 for _ in shares], [0 for _ in groups]
    turns = np.empty(total, dtype=np.int64)
    for place in range(total):
        for ahead, behind in zip(early, due, strict=True):
            while ahead and ahead[0][0] <= place:
                heappush(behind, heappop(ahead)[1:])
        if not any(due):
            _, group = min((ahead[0], group) for group, ahead in enumerate(early) if ahead)
            heappush(due[group], heappop(early[group])[1:])
        ready = [group for group in groups if due[group]]
        ready = [group for group in ready if group_bounds[group][0] <= place] or ready
        group = min(ready, key=lambda group: min(group_bounds[group][1], due[group][0][0]))
        _, stratum = heappop(due[group])
        turns[place] = stratum
        given[stratum] += 1
        group_given[group] += 1
        group_bounds[group] = _bounds(group_shares[group], group_given[group])
        if given[stratum] < shares[stratum][0].rows:
            heappush(early[group], (*_bounds(shares[stratum], given[stratum]), stratum))
    return turns


def _is_even(turns: Rows, sizes: Sequence[int]) -> bool:
    """Whether every prefix holds every stratum's own share to within one row."""
    places, total = np.argsort(turns, kind="stable"), len(turns)
    size = np.repeat(np.asarray(sizes, dtype=np.int64), sizes)
    row = np.concatenate([np.arange(count) for count in (*sizes, 0)])
    return bool(
        (row * total < (places + 1) * size).all() and (places * size < (row + 1) * total).all()
    )


def subset_size(rows: int, fraction: float) -> int:
    """Rows in the first `fraction` of the order; at least one."""
    return max(1, min(rows, math.ceil(round(fraction * rows, 9))))


# -- parts -----------------------------------------------------------------------------------------


def part_sizes(rows: int, fractions: Sequence[float]) -> list[int]:
    """The rows in each part that is split off: at least one, where there are enough."""
    sizes: list[int] = []
    for fraction in fractions:
        sizes.append(min(max(1, round(fraction * rows)), rows - sum(sizes)))
    return sizes


def stratified_parts(
    strata: Sequence[Hashable],
    sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    is_rest_used: bool = True,
) -> list[Rows]:
    """Cut random rows into one or two parts of these sizes and, last, what remains, each in a
    stratified order of its own; `apportioned` says how many rows of a stratum are in each."""
    members = _rows_by_stratum(strata)
    counts = [len(rows) for rows in members.values()]
    table = apportioned(counts, sizes, is_rest_used=is_rest_used)
    cut = [
        np.split(rng.permutation(rows), ends)
        for rows, ends in zip(members.values(), np.cumsum(table, axis=1), strict=True)
    ]
    whole = dict(zip(members, counts, strict=True))
    parts = [np.concatenate([pieces[n] for pieces in cut]) for n in range(len(sizes) + 1)]
    return [
        part[stratified_order([strata[row] for row in part], rng, whole=whole)] for part in parts
    ]


def apportioned(counts: Sequence[int], sizes: Sequence[int], *, is_rest_used: bool = True) -> Rows:
    """How many of each stratum's rows go into each of one or two parts, shape (strata, parts):
    its share of the part, rounded up or down.

    Rounded up is first where a part would have no row of a stratum, then the largest remainder
    (Hamilton's method), rows that an earlier part withheld included; last, where that would leave
    a later part without any, the rest among them if it `is_rest_used`.
    """
    rows = np.asarray(counts, dtype=np.int64)
    total, left, owed = int(rows.sum()), rows.copy(), np.zeros_like(rows)
    table = np.empty((len(rows), len(sizes)), dtype=np.int64)
    for part, size in enumerate(sizes):
        needed = len(sizes) - 1 - part + is_rest_used
        given, remainder = rows * size // total, rows * size % total
        owed += remainder
        spare = left - given
        worst_first = np.lexsort((owed, given == 0, spare > needed, remainder > 0, spare > 0))
        up = worst_first[len(rows) - (size - int(given.sum())) :]
        given[up] += 1
        owed[up] -= total
        left -= given
        table[:, part] = given
    return table
