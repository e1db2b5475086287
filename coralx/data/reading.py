"""A table's rows, from a file, a package or the hub."""

from __future__ import annotations

from collections.abc import Collection
from os.path import isfile
from pathlib import Path

from datasets import load_dataset

from coralx.config.input_files import FORMATS, is_local
from coralx.config.tables import Column, Table
from coralx.data import delimited, json_rows, parquet, tweets
from coralx.data import hub_errors as hub
from coralx.data.tables import SPLITS, Gatherer, TableFile, TableRows

READERS = {"csv": delimited.read, "json": json_rows.read, "parquet": parquet.read}
"""By kind of file. None of them guesses types: a cell is the text that was written."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar")


def read_table(
    table: Table, name: str, key: str, requested: Collection[Column], warnings: list[str]
) -> TableRows:
    """Rows of a file, of `builtin:<name>`, or of a hub data set (its split of the key's name, else
    its train split), read as `table` says, with the `requested` columns alone; `key` is where the
    config names it.

    Raises ConfigError where it cannot be read, or holds no rows.
    """
    path, (section, _, last) = Path(name), key.rpartition(".")
    file = TableFile(path, table, name, f"{key}: {name}", section, frozenset(requested), warnings)
    kind = FORMATS.get(path.suffix.lower())
    if name.startswith("builtin:"):
        rows = _builtin(file)
    elif not isfile(path):
        if kind is not None or is_local(name):
            raise file.problem("no such file")
        rows = _from_hub(file, last if last in SPLITS else "train")
    elif kind is None:
        known = ", ".join(FORMATS)
        is_packed = path.suffix.lower() in COMPRESSED
        raise file.problem(
            f"unknown kind of file {path.suffix!r}; known: {known}",
            "Unpack it first." if is_packed else "",
        )
    else:
        rows = READERS[kind](file)
    if not rows.rows:
        raise file.problem("holds no rows")
    return rows


def _builtin(file: TableFile) -> TableRows:
    gathered = Gatherer(file.requested)
    for row in tweets.table(file.name.removeprefix("builtin:")):
        gathered.add(row)
    return file.rows(gathered.columns, gathered.rows)


def _from_hub(file: TableFile, split: str) -> TableRows:
    try:
        loaded = load_dataset(file.name, split=split)
        names = loaded.column_names
        kept = [name for n, name in enumerate(names) if {name, n} & file.requested]
        # Without a column datasets gives no rows; that there are some makes the better message.
        rows = [dict(row) for row in (loaded.select_columns(kept) if kept else loaded)]
    except Exception as error:  # datasets passes on the errors of pandas, pyarrow and the hub
        trouble = hub.hub_problem(error, file.name, "data set")
        what = trouble.what if trouble else hub.reason(error.__cause__ or error)
        hint = trouble.way_out if trouble else f"Check the name, and that it has a split {split!r}."
        raise file.problem(f"cannot be read: {what}", hint) from None
    return file.rows(names, rows)
