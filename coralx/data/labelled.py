"""Labelled texts: which columns hold them, and to which class a written label belongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coralx.config.data import TaskData, key_of
from coralx.data.examples import Example
from coralx.data.reading import read_table
from coralx.data.tables import class_numbers, problem
from coralx.text import brief, counted, enumerated, left_out, listed

MOST_CLASSES = 100
"""A column with more distinct labels holds texts or numbers, and was named by mistake."""


def read_labelled(
    source: TaskData, task: str, splits: Sequence[str], warnings: list[str]
) -> tuple[dict[str, list[Example]], dict[str, tuple[str, ...]]]:
    """Examples of each split, and the written labels that each class covers, the negative class
    first. `task` is the source's name among `data.tasks`.

    Raises ConfigError for labels that are not listed, or too many or too few of them.
    """
    raw = {split: _read_split(source, task, split, warnings) for split in splits}
    classes = _classes(source, task, [row.label for row in raw["train"]])
    examples = {split: _labelled(rows, classes, source, task, split) for split, rows in raw.items()}
    return examples, classes


def _classes(source: TaskData, task: str, labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Written labels by class, classes in order, the negative one first: those of the config, or
    without any those of the training rows, whose `labels` are given."""
    if isinstance(source.labels, Mapping):
        return dict(source.labels)
    if source.labels is not None:
        return {label: (label,) for label in source.labels}
    names = sorted(set(labels))
    if not 2 <= len(names) <= MOST_CLASSES:
        count = f"{len(names):,} labels"
        if len(names) == 1:
            count = f"one class only ({brief(names[0])})"
        raise problem(
            key_of(task, "label"),
            f"column {source.label!r} of {source.train} holds {count}; 2 to {MOST_CLASSES} are "
            "needed",
            f"List the classes in {key_of(task, 'labels')}, the negative one first, or name "
            "another column.",
        )
    return {name: (name,) for name in names}


def _labelled(
    rows: Sequence[_Row],
    classes: Mapping[str, Sequence[str]],
    source: TaskData,
    task: str,
    split: str,
) -> list[Example]:
    numbers = class_numbers(classes)
    known = [written for labels in classes.values() for written in labels]
    unknown = Counter(row.label for row in rows if row.label not in numbers)
    if unknown:
        where = f"{key_of(task, split)}: {getattr(source, split)}"
        expected = key_of(task, "labels")
        if source.labels is None:
            expected = f"those that {key_of(task, 'train')} holds"
        listing = enumerated(f"{brief(label)} ({n}x)" for label, n in unknown.most_common())
        total = unknown.total()
        raise problem(
            where,
            f"{total:,} of {counted(len(rows), 'row')} {'has' if total == 1 else 'have'} a label "
            f"outside {expected}: {listing}",
            f"Known labels: {listed(known)}. Add the others to "
            f"{key_of(task, 'labels')} (a mapping gives several labels to one class), or correct "
            f"{key_of(task, 'label')}.",
        )
    return [Example(row.text, numbers[row.label], group=row.group) for row in rows]


@dataclass(frozen=True)
class _Row:
    """Cells as they were written."""

    text: str
    label: str
    group: str = ""


def _read_split(source: TaskData, task: str, split: str, warnings: list[str]) -> list[_Row]:
    """Every row with a text and a label."""
    name, key = str(getattr(source, split)), key_of(task, split)
    roles = ("text", "label") if source.group is None else ("text", "label", "group")
    table = read_table(source, name, key, [getattr(source, role) for role in roles], warnings)
    columns = {role: table.column(getattr(source, role), key_of(task, role)) for role in roles}
    cells = [map(str.strip, table.texts(columns[role])) for role in roles]
    rows = [_Row(*row) for row in zip(*cells, strict=True)]
    for role in ("text", "label"):
        kept = [row for row in rows if getattr(row, role)]
        if not kept:
            wrong = f"column {columns[role]!r} is empty in all {counted(len(rows), 'row')}"
            raise problem(f"{key}: {name}", wrong)
        if len(kept) < len(rows):
            omitted = left_out(len(rows) - len(kept), f"without a {role}")
            warnings.append(f"{key}: {name}: {omitted}")
        rows = kept
    return rows
