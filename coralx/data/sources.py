"""Examples from files, the hub or packages, split into train, validation and test."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError

from coralx.config.schema import Data
from coralx.config.suggest import did_you_mean
from coralx.data import builtin
from coralx.data.subsets import split_off, stratified_order
from coralx.errors import ConfigError
from coralx.rng import generator

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Example:
    """One labelled text; `label` is the class's index in the order of the config's `labels`."""

    text: str
    label: int


@dataclass(frozen=True)
class Examples:
    """The three splits; training rows stand in the run's one fixed order."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def load_examples(data: Data, seed: int) -> Examples:
    """All splits of a config's data. Raises ConfigError naming key, file and way out."""
    warnings: list[str] = []
    raw = {"train": _read_split(data, "train", warnings)}
    for split in ("validation", "test"):
        if getattr(data, split) is not None:
            raw[split] = _read_split(data, split, warnings)
    classes = _classes(data, [label for _, label in raw["train"]])
    splits = {
        split: _labelled(rows, classes, f"data.{split}: {getattr(data, split)}")
        for split, rows in raw.items()
    }
    missing = [name for name in ("validation", "test") if name not in splits]
    order = stratified_order(
        [example.label for example in splits["train"]], generator(seed, "data-order")
    )
    fractions = [getattr(data, f"{name}_fraction") for name in missing]
    if sum(fractions) >= 1:
        raise ConfigError(
            "data", [f"the fractions split off add up to {sum(fractions):g}; nothing is left"]
        )
    *off, rest = split_off(order, fractions)
    for name, rows in zip(missing, off, strict=True):
        splits[name] = [splits["train"][row] for row in rows]
    train = tuple(splits["train"][row] for row in rest[: data.limit])
    for name in ("validation", "test"):
        if name not in missing:  # so that its first rows are a fair sample of it
            strata = [example.label for example in splits[name]]
            rows = stratified_order(strata, generator(seed, f"{name}-order"))
            splits[name] = [splits[name][row] for row in rows]
    names = tuple(classes)
    _require_all_classes("data.train", train, names)
    for name in ("validation", "test"):
        _require_all_classes(f"data.{name}", splits[name], names)
    return Examples(
        train, tuple(splits["validation"]), tuple(splits["test"]), names, tuple(warnings)
    )


# -- labels --------------------------------------------------------------------------------------


def _classes(data: Data, found: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Written labels by class, classes in order, the negative one first."""
    if isinstance(data.labels, Mapping):
        return dict(data.labels)
    if data.labels is not None:
        return {label: (label,) for label in data.labels}
    names = sorted(set(found))
    if not 2 <= len(names) <= 100:
        few = f"one class only ({names[0]!r})" if len(names) == 1 else f"{len(names)} labels"
        raise ConfigError(
            "data.label",
            [f"column {data.label!r} of {data.train} holds {few}; at least two are needed"],
            "List the classes in data.labels, the negative one first, or name another column.",
        )
    return {name: (name,) for name in names}


def _labelled(
    rows: Sequence[tuple[str, str]], classes: Mapping[str, Sequence[str]], where: str
) -> list[Example]:
    index = {written: i for i, name in enumerate(classes) for written in classes[name]}
    unknown = Counter(label for _, label in rows if label not in index)
    if unknown:
        shown = ", ".join(f"{label[:40]!r} ({count}x)" for label, count in unknown.most_common(5))
        raise ConfigError(
            where,
            [
                f"{sum(unknown.values())} of {len(rows)} rows have a label outside data.labels: "
                f"{shown}"
            ],
            f"Known labels: {', '.join(map(repr, index))}. Add the others to data.labels "
            "(a mapping gives several labels to one class), or correct data.label.",
        )
    return [Example(text, index[label]) for text, label in rows]


def _require_all_classes(where: str, rows: Sequence[Example], names: Sequence[str]) -> None:
    present = Counter(example.label for example in rows)
    absent = [name for i, name in enumerate(names) if not present[i]]
    if absent:
        raise ConfigError(
            where,
            [f"no row of class {', '.join(map(repr, absent))} among its {len(rows)} rows"],
            "Every split needs every class: give more rows, or correct data.label and data.labels.",
        )


# -- reading -------------------------------------------------------------------------------------


def _read_split(data: Data, split: str, warnings: list[str]) -> list[tuple[str, str]]:
    """(text, label as written) of every row with a text."""
    name = str(getattr(data, split))
    where = f"data.{split}: {name}"
    table = _read_table(data, name, split, where)
    first = table[0] if table else None
    if first is None:
        raise ConfigError(where, ["holds no rows"])
    text, label = _column(data, "text", first, where), _column(data, "label", first, where)
    rows = [(_as_text(row.get(text)).strip(), _as_text(row.get(label)).strip()) for row in table]
    kept = [row for row in rows if row[0]]
    if not kept:
        raise ConfigError(where, [f"column {text!r} is empty in all {len(rows)} rows"])
    if len(kept) < len(rows):
        warnings.append(f"{where}: {len(rows) - len(kept)} rows without a text were left out")
    return kept


def _column(data: Data, role: str, row: Mapping[str, Any], where: str) -> str:
    """The name under which the table holds the column that `role` points at."""
    wanted = getattr(data, role)
    names = list(row)
    if isinstance(wanted, int):
        if wanted < len(names):
            return names[wanted]
        found, near = f"it has {len(names)} columns, counted from 0", ""
    elif wanted in row:
        return str(wanted)
    else:
        found, near = f"it has {', '.join(map(repr, names))}", did_you_mean(wanted, names)
    raise ConfigError(
        where,
        [f"data.{role}: no column {wanted!r}{near}; {found}"],
        "If the columns look glued together, data.delimiter is wrong; if they look like a row, "
        "set data.header: false.",
    )


def _as_text(value: Any) -> str:
    """A cell as it was written: JSON's booleans in JSON's own words, absent cells empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _read_table(data: Data, name: str, split: str, where: str) -> list[dict[str, Any]]:
    if name.startswith("builtin:"):
        return list(builtin.table(name.removeprefix("builtin:")))
    path = Path(name)
    kind = FORMATS.get(path.suffix.lower())
    if not path.is_file() and (kind is not None or path.is_absolute() or name.startswith(".")):
        raise ConfigError(
            where,
            ["no such file"],
            f"Paths are looked up from the working folder ({Path.cwd()}), then from the config's.",
        )
    try:
        if not path.is_file():
            return _rows(load_dataset(name, split=split))
        if kind is None:
            raise ConfigError(
                where, [f"unknown kind of file {path.suffix!r}; known: {', '.join(FORMATS)}"]
            )
        if kind == "csv":
            return _read_csv(data, path)
        return _rows(load_dataset(kind, data_files=str(path), split="train", streaming=True))
    except ConfigError:
        raise
    except Exception as error:  # datasets passes on the errors of pandas, pyarrow and the hub
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        first_line = str(cause or error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            where,
            [f"cannot be read: {first_line[0]}"],
            "Check data.delimiter, data.encoding and data.header, or the name.",
        ) from None


def _rows(table: Dataset | IterableDataset) -> list[dict[str, Any]]:
    return [dict(row) for row in table]


def _read_csv(data: Data, path: Path) -> list[dict[str, Any]]:
    """Every cell as the text that was written; tab-delimited files are read without quoting."""
    delimiter = data.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    table = pandas.read_csv(
        path,
        sep=delimiter,
        header=0 if data.header else None,
        encoding=data.encoding,
        dtype=str,
        keep_default_na=False,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
    )
    table.columns = table.columns.map(str)
    return [{str(name): cell for name, cell in row.items()} for row in table.to_dict("records")]
