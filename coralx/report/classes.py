"""The classes of a run as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coralx.config import Config
from coralx.config.data import key_of
from coralx.records.run_facts import Facts
from coralx.text import MOST_LISTED, brief, enumerated

SPLITS = ("train", "validation", "test")
"""As they are listed; the ledger keeps them by their letters."""


def classes_of(config: Config, facts: Facts) -> list[dict[str, Any]]:
    """As written into `report.json`: each task's classes in the order of its logits (label-tokens:
    of its scores), with their rows split by split in the same order. `named_by` tells whether the
    config lists them or they were taken from the data, and sorted."""
    classes = []
    for each in facts.classes:
        is_listed = config.data.sources[each.task].labels is not None
        classes.append(
            {
                "task": each.task or None,
                "labels": list(each.labels),
                "negative": each.labels[0],
                "named_by": "config" if is_listed else "data",
                "rows": {split: list(each.rows[split]) for split in SPLITS},
            }
        )
    return classes


def class_lines(task: str, classes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which classes each task has, with their rows, and which is negative; empty where none are
    known. `task` is `model.task`."""
    if not classes:
        return []
    order = "logits" if task == "sequence-classification" else "scores"
    lines = [f"classes in the order of the {order} (rows of {'/'.join(SPLITS)}):"]
    lines += [f"  {_line(each)}" for each in classes]
    unset = [key_of(each["task"] or "", "labels") for each in classes if each["named_by"] == "data"]
    if unset:
        lines.append(f"  taken from the data and sorted; to set the order: {enumerated(unset)}")
    return lines


def _line(classes: Mapping[str, Any]) -> str:
    """A task's classes: `'ham' (negative) 80/10/10, 'spam' (positive) 40/5/5`."""
    labels = classes["labels"]
    rows_of_class = zip(*(classes["rows"][split] for split in SPLITS), strict=True)
    signs = [" (negative)", " (positive)" if len(labels) == 2 else "", *[""] * (len(labels) - 2)]
    described = []
    for label, sign, rows in zip(labels, signs, rows_of_class, strict=True):
        counts = "/".join(f"{count:,}" for count in rows)
        described.append(f"{brief(label)}{sign} {counts}")
    size = f" ({len(labels)} in all)" if len(labels) > MOST_LISTED else ""
    return (f"{classes['task']}: " if classes["task"] else "") + enumerated(described) + size
