"""Examples: labelled texts from tables, split into train, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coralx.config.schema import Data
from coralx.config.suggest import did_you_mean
from coralx.data.subsets import split_off, stratified_order
from coralx.data.tables import problem, read_table
from coralx.rng import generator

MOST_CLASSES = 100
"""More distinct labels than this mean that a column of texts or numbers was named."""


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
        raise problem(
            "data", f"the fractions split off add up to {sum(fractions):g}; nothing is left"
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
    warnings += _duplicates({**splits, "train": train})
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
    if not 2 <= len(names) <= MOST_CLASSES:
        held = f"one class only ({names[0]!r})" if len(names) == 1 else f"{len(names)} labels"
        raise problem(
            "data.label",
            f"column {data.label!r} of {data.train} holds {held}; 2 to {MOST_CLASSES} are needed",
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
        raise problem(
            where,
            f"{unknown.total()} of {len(rows)} rows have a label outside data.labels: {shown}",
            f"Known labels: {', '.join(map(repr, index))}. Add the others to data.labels "
            "(a mapping gives several labels to one class), or correct data.label.",
        )
    return [Example(text, index[label]) for text, label in rows]


def _require_all_classes(where: str, rows: Sequence[Example], names: Sequence[str]) -> None:
    present = Counter(example.label for example in rows)
    absent = [name for i, name in enumerate(names) if not present[i]]
    if absent:
        raise problem(
            where,
            f"no row of class {', '.join(map(repr, absent))} among its {len(rows)} rows",
            "Every split needs every class: give more rows, or correct data.label and data.labels.",
        )


def _duplicates(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Warnings about texts that stand in more than one split."""
    texts = {name: {example.text for example in splits[name]} for name in splits}
    found = []
    for held, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        count = sum(example.text in texts[held] for example in splits[other])
        if count:
            found.append(
                f"{count} of {len(splits[other])} {other} texts stand in the {held} split, too: "
                "its figures will look better than they are"
            )
    return found


# -- texts ---------------------------------------------------------------------------------------


def _read_split(data: Data, split: str, warnings: list[str]) -> list[tuple[str, str]]:
    """(text, label as written) of every row with a text."""
    name = str(getattr(data, split))
    where = f"data.{split}: {name}"
    table = read_table(data, name, split)
    if not table:
        raise problem(where, "holds no rows")
    text, label = (_column(data, role, list(table[0]), name) for role in ("text", "label"))
    rows = [(_as_text(row.get(text)).strip(), _as_text(row.get(label)).strip()) for row in table]
    for place, (what, column) in enumerate((("text", text), ("label", label))):
        kept = [row for row in rows if row[place]]
        if not kept:
            raise problem(where, f"column {column!r} is empty in all {len(rows)} rows")
        if len(kept) < len(rows):
            warnings.append(f"{where}: {len(rows) - len(kept)} rows without a {what} were left out")
        rows = kept
    return rows


def _column(data: Data, role: str, names: Sequence[str], table: str) -> str:
    """The name under which the table holds the column that `role` points at."""
    wanted = getattr(data, role)
    if isinstance(wanted, int):
        if wanted < len(names):
            return names[wanted]
        held, near = f"{len(names)} columns, counted from 0", ""
    elif wanted in names:
        return str(wanted)
    else:
        held, near = ", ".join(map(repr, names)), did_you_mean(wanted, names)
    raise problem(
        f"data.{role}",
        f"no column {wanted!r} in {table}{near}; it has {held}",
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
