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
    config lists them or they were found in the data, and sorted."""
    return [
        {
            "task": each.task or None,
            "labels": list(each.labels),
            "negative": each.labels[0],
            "named_by": "data" if config.data.sources[each.task].labels is None else "config",
            "rows": {split: list(each.rows[split]) for split in SPLITS},
        }
        for each in facts.classes
    ]


def class_lines(task: str, classes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which classes each task has, with their rows, and which is negative; empty where none are
    known. `task` is `model.task`."""
    if not classes:
        return []
    order = "logits" if task == "sequence-classification" else "scores"
    lines = [f"classes in the order of the {order} (rows of {'/'.join(SPLITS)}):"]
    lines += [f"  {_line(each)}" for each in classes]
    found = [key_of(each["task"] or "", "labels") for each in classes if each["named_by"] == "data"]
    if found:
        lines.append(f"  found in the data and sorted; another order: {enumerated(found)}")
    return lines


def _line(classes: Mapping[str, Any]) -> str:
    labels, counts = classes["labels"], zip(*(classes["rows"][s] for s in SPLITS), strict=True)
    signs = [" (negative)", " (positive)" if len(labels) == 2 else "", *[""] * (len(labels) - 2)]
    each = [
        f"{brief(label)}{sign} {'/'.join(f'{count:,}' for count in rows)}"
        for label, sign, rows in zip(labels, signs, counts, strict=True)
    ]
    size = f" ({len(labels)} in all)" if len(labels) > MOST_LISTED else ""
    return (f"{classes['task']}: " if classes["task"] else "") + enumerated(each) + size
