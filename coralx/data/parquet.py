"""Rows of parquet files."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyarrow
import pyarrow.compute as compute
from pyarrow.parquet import ParquetFile

from coralx.data.tables import TableFile, TableRows


def read(file: TableFile) -> TableRows:
    """The file's rows. Raises ConfigError where it is damaged, or no parquet file."""
    try:
        with ParquetFile(file.path) as parquet:
            columns = parquet.schema_arrow.names
            kept = [name for n, name in enumerate(columns) if {name, n} & file.requested]
            table = parquet.read(columns=kept)
            cells = [_cells(table.column(name)) for name in kept]
            count = parquet.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise file.problem(f"cannot be read: {reason[0]}", "Is it a parquet file?") from None
    rows = [dict(zip(kept, row, strict=True)) for row in zip(*cells, strict=True)]
    # Without a column, zip gives no rows; that there are some makes the better message.
    return file.rows(columns, rows if kept else [{} for _ in range(count)])


def _cells(column: Any) -> list[Any]:
    """A column's cells, NaN as absent ones. Whole numbers in a column with absent cells are whole
    again: pandas has to keep 1 as 1.0 there, and as labels the two differ."""
    if pyarrow.types.is_dictionary(column.type):  # pandas' categories
        column = column.cast(column.type.value_type)
    if pyarrow.types.is_float16(column.type):
        column = column.cast(pyarrow.float32())
    if pyarrow.types.is_floating(column.type):
        column = compute.if_else(compute.is_nan(column), None, column)
        if column.null_count:
            with suppress(pyarrow.ArrowInvalid):  # some are not whole: they stay as they are
                column = column.cast(pyarrow.int64())
    cells: list[Any] = column.to_pylist()
    return cells
