"""`builtin:tweets`: sentiment of real tweets, from a package or, if it is missing, from the hub."""

from __future__ import annotations

import csv
from pathlib import Path

from datasets import load_dataset

from coralx.data import hub_errors as hub
from coralx.data.builtin import TABLES, Builtin, find, missing


def table(name: str) -> list[dict[str, str]]:
    """Rows of `builtin:<name>`. `tweets`: columns text and sentiment, positive against negative.

    Texts that occur more than once are kept once, or not at all where their labels disagree.
    """
    builtin, path = find(name, TABLES, "data set")
    rows = _read_package(path) if path else _read_hub(name, builtin)
    labels: dict[str, str | None] = {}
    for text, label in rows:
        text = text.strip()
        if label in ("negative", "positive") and text:
            labels[text] = label if labels.get(text, label) == label else None
    return [{"text": t, "sentiment": label} for t, label in labels.items() if label is not None]


def _read_package(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="latin-1", newline="") as file:
        return [(row["text"], row["sentiment"]) for row in csv.DictReader(file)]


def _read_hub(name: str, builtin: Builtin) -> list[tuple[str, str]]:
    try:
        loaded = load_dataset(builtin.hub, split="train")
    except Exception as error:  # the hub's client raises errors of many libraries
        trouble = hub.hub_problem(error, builtin.hub, "data set")
        raise missing(name, builtin, trouble.what if trouble else hub.reason(error)) from None
    return list(zip(loaded["text"], loaded["label_text"], strict=True))
