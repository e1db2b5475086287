"""Rows of files, packages and the hub."""

from __future__ import annotations

from collections.abc import Collection
from os.path import isfile
from pathlib import Path

from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError

from coralx.config.data import Column, Table
from coralx.config.inputs import FORMATS, is_local
from coralx.data import delimited, json_rows, parquet, tweets
from coralx.data.tables import SPLITS, Gatherer, Rows, TableFile, problem

READERS = {"csv": delimited.read, "json": json_rows.read, "parquet": parquet.read}
"""By kind of file. None of them guesses types: a cell is the text that was written."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar")


def read_table(
    table: Table, name: str, key: str, wanted: Collection[Column], warnings: list[str]
) -> Rows:
    """Rows of a file, of `builtin:<name>`, or of a hub data set (its split of the key's name, else
    its train split), read as `table` says, with the `wanted` columns alone; `key` is where the
    config names it.

    Raises ConfigError where it cannot be read, or holds no rows.
    """
    path, (section, _, last) = Path(name), key.rpartition(".")
    file = TableFile(path, table, name, f"{key}: {name}", section, frozenset(wanted), warnings)
    kind = FORMATS.get(path.suffix.lower())
    if name.startswith("builtin:"):
        found = _builtin(file)
    elif not isfile(path):
        if kind is not None or is_local(name):
            raise file.problem("no such file")
        found = _from_hub(file, last if last in SPLITS else "train")
    elif kind is None:
        known = ", ".join(FORMATS)
        is_packed = path.suffix.lower() in COMPRESSED
        raise file.problem(
            f"unknown kind of file {path.suffix!r}; known: {known}",
            "Unpack it first." if is_packed else "",
        )
    else:
        found = READERS[kind](file)
    if not found.rows:
        raise file.problem("holds no rows")
    return found


def _builtin(file: TableFile) -> Rows:
    gathered = Gatherer(file.wanted)
    for row in tweets.table(file.name.removeprefix("builtin:")):
        gathered.add(row)
    return file.rows(gathered.columns, gathered.rows)


def _from_hub(file: TableFile, split: str) -> Rows:
    try:
        loaded = load_dataset(file.name, split=split)
        names = loaded.column_names
        kept = [name for n, name in enumerate(names) if {name, n} & file.wanted]
        # without a column there would be no rows
        rows = [dict(row) for row in (loaded.select_columns(kept) if kept else loaded)]
    except Exception as error:  # datasets passes on the errors of pandas, pyarrow and the hub
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        reason = str(cause or error).strip().splitlines() or [type(error).__name__]
        raise problem(file.where, f"cannot be read: {reason[0]}", "Check the name.") from None
    return file.rows(names, rows)
