"""Learning curves in CSV files: a row for each checkpoint of each configuration.

| column | what it holds |
| --- | --- |
| `config` | names the configuration |
| `steps` (or `step`, `checkpoint`) | when it was looked at, a whole number from 1 |
| the metric, such as `auroc` | its figure there; an empty cell: undefined, as after a divergence |
| `task` | optional: each task is a table of its own, with the same configurations |
| `total_steps` | optional: a whole training; else each configuration's last row ends it |
| `eval_loss` or `perplexity` | optional: what stages may rank by instead of the metric |
| `train_loss` | optional: the mean loss of the last training steps, to rank by as well |
| `eval_rows` | optional: validation rows behind a row's figures |
| METRIC`_standard_error` | optional: of the figure on so many rows |
| `test_`METRIC | optional: the full result, on other rows; else it is the metric at the end |
| `batch_size` | optional: with it, the steps tell how many rows a training reads |
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from coralx.api.quality import FURTHER, LOSSES, TRAIN_LOSS, Quality
from coralx.config.metric_catalogue import CATALOGUE, standard_error_name
from coralx.errors import UsageError
from coralx.schedule.cohort_regret import Floats
from coralx.schedule.tuning_curves import LOSS, METRIC, TRAINING, CurveTable, Signal
from coralx.text import counted, did_you_mean, enumerated, shown

CLOCKS = ("steps", "step", "checkpoint")
COLUMNS = "docs/search.md lists the columns that are read."


@dataclass(frozen=True)
class _Row:
    """A line of the file."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class _File:
    """A file whose header has the columns that are needed."""

    path: Path
    columns: Sequence[str]
    rows: Sequence[_Row]
    clock: str

    def problem(self, row: _Row, column: str, what: str, hint: str = "") -> UsageError:
        """An error in one cell."""
        return UsageError(f"{self.path}, line {row.line}, column {column!r}: {what}", hint)

    def count(self, row: _Row, column: str) -> int:
        """A whole number from 1. Raises UsageError."""
        text = row.cells[column]
        if text.isascii() and text.isdigit() and 0 < len(text) < 16 and int(text) > 0:
            return int(text)
        raise self.problem(row, column, f"{shown(text)} is not a whole number from 1")

    def optional_count(self, row: _Row, column: str) -> float:
        """The same, NaN where there is no such column or the cell is empty."""
        return self.count(row, column) if row.cells.get(column) else math.nan

    def number(self, row: _Row, column: str) -> float:
        """A number; NaN where there is no such column, and for an empty cell or one that says nan
        or inf. Raises UsageError."""
        text = row.cells.get(column, "")
        try:
            value = float(text) if text else math.nan
        except ValueError:
            raise self.problem(
                row, column, f"{shown(text)} is not a number", "Leave an undefined figure empty."
            ) from None
        return value if math.isfinite(value) else math.nan


def read_curves(
    path: Path, qualities: Sequence[Quality], tolerance: float | None
) -> list[CurveTable]:
    """A table for each task of the file and each of the qualities that it has.

    `tolerance` replaces the metrics' own. Raises UsageError for what cannot be read, naming line
    and column.
    """
    file = _read(path)
    own = [quality for quality in qualities if quality.name in file.columns]
    if not own:
        asked = ", ".join(
            f"{quality.name!r}{did_you_mean(quality.name, file.columns)}" for quality in qualities
        )
        known = [name for name in file.columns if name in CATALOGUE or name in FURTHER]
        raise UsageError(
            f"{path}, line 1: no column {asked}",
            f"Name its column with --metric NAME; it has {enumerated(known or file.columns)}.",
        )
    tasks: dict[str, list[_Row]] = {}
    for row in file.rows:
        tasks.setdefault(row.cells.get("task", ""), []).append(row)
    return [
        _table(file, task, rows, quality, tolerance)
        for task, rows in tasks.items()
        for quality in own
    ]


def _read(path: Path) -> _File:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if any(cells)]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text", "Save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise UsageError(f"{path}: not a CSV file: {error}") from None
    if len(lines) < 2:
        raise UsageError(f"{path}: no row below a line of column names", COLUMNS)
    header = [name.strip() for name in lines[0][1]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UsageError(f"{path}, line 1: the column {shown(twice[0])} comes twice")
    clock = next((name for name in CLOCKS if name in header), None)
    missing = [] if "config" in header else [f"'config'{did_you_mean('config', header)}"]
    missing += [] if clock else ["'steps', 'step' or 'checkpoint'"]
    if missing or clock is None:
        raise UsageError(
            f"{path}, line 1: no column {' and no column '.join(missing)}; it has "
            f"{enumerated(header)}",
            COLUMNS,
        )
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise UsageError(
                f"{path}, line {line}: {counted(len(cells), 'cell')}, but line 1 names "
                f"{counted(len(header), 'column')}"
            )
        stripped = (cell.strip() for cell in cells)
        rows.append(_Row(line, dict(zip(header, stripped, strict=True))))
    return _File(path, header, rows, clock)


def _table(
    file: _File, task: str, rows: Sequence[_Row], quality: Quality, tolerance: float | None
) -> CurveTable:
    curves: dict[str, list[tuple[int, _Row]]] = {}
    for row in rows:
        if not row.cells["config"]:
            raise file.problem(row, "config", "the cell is empty")
        curves.setdefault(row.cells["config"], []).append((file.count(row, file.clock), row))
    ordered = {name: _ascending(file, name, curve) for name, curve in curves.items()}
    shares, has_ended = zip(*(_shares(file, curve) for curve in ordered.values()), strict=True)
    rows_of = [[row for _, row in curve] for curve in ordered.values()]
    signals = {METRIC: _signal(file, rows_of, quality)}
    loss = next((name for name in (quality.name, *file.columns) if name in LOSSES), None)
    if loss == quality.name:
        signals[LOSS] = signals[METRIC]
    elif loss is not None:
        signals[LOSS] = _signal(file, rows_of, Quality(loss, "minimize"))
    if TRAIN_LOSS.name in file.columns:
        signals[TRAINING] = Signal(_signal(file, rows_of, TRAIN_LOSS).values)
    name = f"{file.path.name}{f', {task}' if task else ''}: {quality.name}"
    full, remarks = _full_results(file, rows_of, has_ended, quality, name)
    within = quality.tolerance if tolerance is None else tolerance
    if within is None:
        raise UsageError(
            f"what loss of {quality.name!r} is as good as none is not known",
            "Say it in the metric's unit: --tolerance NUMBER.",
        )
    return CurveTable(
        name=name,
        metric=quality.name,
        configurations=tuple(ordered),
        checkpoints=tuple(shares),
        signals=signals,
        full=full,
        tolerance=within,
        training_rows=_training_rows(file, ordered),
        remarks=tuple(remarks),
    )


def _ascending(file: _File, name: str, curve: list[tuple[int, _Row]]) -> list[tuple[int, _Row]]:
    """A configuration's rows by time. Raises UsageError where two have the same."""
    seen: dict[int, _Row] = {}
    for time, row in curve:
        if time in seen:
            raise file.problem(
                row,
                file.clock,
                f"configuration {shown(name)} has {time} here and in line {seen[time].line}",
                "A file of several tasks names them in a column `task`.",
            )
        seen[time] = row
    return sorted(curve, key=lambda pair: pair[0])


def _shares(file: _File, curve: Sequence[tuple[int, _Row]]) -> tuple[tuple[Fraction, ...], bool]:
    """Where a configuration's checkpoints lie, and whether it was trained to its end."""
    last, row = curve[-1]
    total = file.optional_count(row, "total_steps") if file.clock != "checkpoint" else math.nan
    whole = last if math.isnan(total) else int(total)
    if last > whole:
        raise file.problem(row, "total_steps", f"{whole} is less than the step of this row, {last}")
    return tuple(Fraction(time, whole) for time, _ in curve), last == whole


def _signal(file: _File, curves: Sequence[Sequence[_Row]], quality: Quality) -> Signal:
    def gathered(read: Any) -> Floats:
        longest = max(map(len, curves))
        values = [[read(row) for row in curve] for curve in curves]
        return np.array([[*own, *[math.nan] * (longest - len(own))] for own in values])

    values = gathered(lambda row: quality.turned(file.number(row, quality.name)))
    rows = gathered(lambda row: file.optional_count(row, "eval_rows"))
    error = standard_error_name(quality.name)
    if error in file.columns:
        errors = gathered(lambda row: file.number(row, error))
        if quality.is_perplexity:  # of the logarithm, by the delta method
            errors = errors / np.exp(-values)
        deviation: Floats | None = errors * np.sqrt(rows)
    else:
        deviation = quality.deviation(values)
    has_rows = bool(np.isfinite(rows[np.isfinite(values)]).all())
    return Signal(values, rows if has_rows else None, deviation if has_rows else None)


def _full_results(
    file: _File,
    curves: Sequence[Sequence[_Row]],
    has_ended: Sequence[bool],
    quality: Quality,
    name: str,
) -> tuple[Floats, list[str]]:
    """The full result of every configuration; one without counts as the worst of the others."""
    test = f"test_{quality.name}"
    column = test if test in file.columns else quality.name
    full = np.array(
        [
            quality.turned(file.number(curve[-1], column)) if ended else math.nan
            for curve, ended in zip(curves, has_ended, strict=True)
        ]
    )
    without = np.isnan(full)
    if without.all():
        raise UsageError(f"{name}: no configuration has a figure of {column!r} at its end")
    full[without] = full[~without].min()
    remarks = []
    if without.any():
        count = int(without.sum())
        remarks.append(
            f"{count} of {len(full)} configurations {'has' if count == 1 else 'have'} no figure at "
            f"the end and {'counts' if count == 1 else 'count'} as the worst"
        )
    return full, remarks


def _training_rows(file: _File, curves: dict[str, list[tuple[int, _Row]]]) -> float | None:
    """What a training reads, on average; None where the file does not tell."""
    if "batch_size" not in file.columns or file.clock == "checkpoint":
        return None
    read = []
    for curve in curves.values():
        last, row = curve[-1]
        total = file.optional_count(row, "total_steps")
        read.append((last if math.isnan(total) else total) * file.count(row, "batch_size"))
    return float(np.mean(read))
