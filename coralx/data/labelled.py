"""Labelled texts: which columns hold them, and to which class a written label belongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from coralx.config.schema import Data
from coralx.data.examples import Example
from coralx.data.tables import as_text, column_name, problem, read_table

MOST_CLASSES = 100
"""More distinct labels than this mean that a column of texts or numbers was named."""


def read_labelled(
    data: Data, splits: Sequence[str], warnings: list[str]
) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
    """Examples of each split, and the classes' names, the negative one first.

    Raises ConfigError for labels that are not listed, or too many or too few of them.
    """
    raw = {split: _read_split(data, split, warnings) for split in splits}
    classes = _classes(data, [label for _, label in raw["train"]])
    examples = {
        split: _labelled(rows, classes, f"data.{split}: {getattr(data, split)}")
        for split, rows in raw.items()
    }
    return examples, tuple(classes)


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


def _read_split(data: Data, split: str, warnings: list[str]) -> list[tuple[str, str]]:
    """(text, label as written) of every row with a text."""
    name = str(getattr(data, split))
    where = f"data.{split}: {name}"
    table = read_table(data, name, split)
    if not table:
        raise problem(where, "holds no rows")
    text, label = (column_name(data, role, list(table[0]), name) for role in ("text", "label"))
    rows = [(as_text(row.get(text)).strip(), as_text(row.get(label)).strip()) for row in table]
    for place, (what, column) in enumerate((("text", text), ("label", label))):
        kept = [row for row in rows if row[place]]
        if not kept:
            raise problem(where, f"column {column!r} is empty in all {len(rows)} rows")
        if len(kept) < len(rows):
            warnings.append(f"{where}: {len(rows) - len(kept)} rows without a {what} were left out")
        rows = kept
    return rows
