"""Regret and hypervolume of what a tape holds, at budgets; means, intervals and paired differences.

A budget is counted in full trainings of this table: its configurations' average length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from curve_table import Table
from numpy.typing import NDArray
from tape import Tape

from coralx.search.indicators import box_of, relative_hypervolume
from coralx.search.pareto import Points

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]
"""By method, shape (seeds, budgets)."""


def regrets(tape: Tape, budgets: Sequence[float]) -> list[float]:
    """How much worse the recommended configuration's full result is than the table's best, in the
    metric's unit; the table's worst where nothing was seen by then."""
    table = tape.table
    losses = [table.full_loss(config) for config in range(len(table))]
    found = []
    for limit in (budget * table.full_training for budget in budgets):
        known = [config for spent, config in tape.recommended if spent <= limit]
        found.append((losses[known[-1]] if known else max(losses)) - min(losses))
    return found


def volumes(tape: Tape, budgets: Sequence[float]) -> list[float]:
    """Hypervolume of the configurations seen to their end, quality against size, as a share of the
    volume that the whole table has."""
    table = tape.table
    points = _points(table)
    box = box_of(points)
    whole = relative_hypervolume(points, box)
    found = []
    for limit in (budget * table.full_training for budget in budgets):
        finished = [config for spent, config in tape.finished if spent <= limit]
        found.append(relative_hypervolume(points[finished], box) / whole)
    return found


def _points(table: Table) -> Points:
    """Loss and the logarithm of size: sizes differ by orders of magnitude."""
    losses = [table.full_loss(config) for config in range(len(table))]
    return np.column_stack([losses, np.log2(table.parameters)])


def mean_table(scores: Scores, budgets: Sequence[float]) -> str:
    """Means over seeds with 95 % intervals of the mean, in Markdown."""
    lines = _head("method", budgets)
    for name, values in scores.items():
        cells = [_interval(column) for column in values.T]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paired_table(scores: Scores, reference: str, budgets: Sequence[float]) -> str:
    """Each method's score less the reference's, seed by seed: the mean with its 95 % interval, and
    how often the method's is higher, equal, lower. In Markdown."""
    lines = _head(f"less {reference}", budgets)
    for name, values in scores.items():
        if name == reference:
            continue
        cells = []
        for column in (values - scores[reference]).T:
            counts = (np.sum(column > 0), np.sum(column == 0), np.sum(column < 0))
            cells.append(f"{_interval(column, '+')} ({' / '.join(map(str, counts))})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _head(first: str, budgets: Sequence[float]) -> list[str]:
    columns = [first, *(f"{budget:g}" for budget in budgets)]
    return [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]


def _interval(values: Floats, sign: str = "") -> str:
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{values.mean():{sign}.3f} ± {half:.3f}"
