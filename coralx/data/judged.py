"""What a task is judged by beside its validation and test split: attacks, and clean rows.

One file serves both, as search and final measurement must not see the same rows: half of it goes
with validation, the other half with the test split. Perturbations are of each split's own rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coralx.config.data import Attacks, CleanHoldout, Source, key_of
from coralx.data.examples import Example
from coralx.data.perturbations import perturbed
from coralx.data.tables import as_text, column_name, problem, read_table
from coralx.rng import generator

Halves = dict[str, tuple[Example, ...]]
"""Rows for `validation` and for `test`."""


def attacks_of(
    source: Source,
    task: str,
    classes: Mapping[str, Sequence[str]],
    splits: Mapping[str, Sequence[Example]],
    seed: int,
    warnings: list[str],
) -> Halves:
    """The source's attacks; none where it names none. Raises ConfigError for a file that holds
    fewer than two."""
    attacks = source.attacks
    if attacks is None:
        return {}
    if attacks.file is not None:
        rows = _attacks_in(attacks, attacks.file, source, task, classes, warnings)
        return _halves(rows, attacks, key_of(task, "attacks"), seed, "attacks")
    found: Halves = {}
    for split in ("validation", "test"):
        positive = [example for example in splits[split] if example.label > 0]
        made = [
            replace(
                row, text=perturbed(row.text, kind, generator(seed, f"{split}-{kind}", index=n))
            )
            for n, row in enumerate(positive)
            for kind in attacks.perturbations
        ]
        found[split] = tuple(made[: attacks.limit])
    return found


def clean_of(source: Source, task: str, seed: int, warnings: list[str]) -> Halves:
    """The source's clean hold-out; nothing where it names none."""
    holdout = source.clean_holdout
    if holdout is None:
        return {}
    key = key_of(task, "clean_holdout")
    rows = _texts(holdout, holdout.file, f"{key}.file", f"{key}.text", warnings)
    examples = [Example(text) for text, _ in rows]
    return _halves(examples, holdout, key, seed, "clean-holdout")


def _attacks_in(
    attacks: Attacks,
    file: str,
    source: Source,
    task: str,
    classes: Mapping[str, Sequence[str]],
    warnings: list[str],
) -> list[Example]:
    """The rows of a file of attacks; where it has the column of labels, too, those of the first
    class are none."""
    key = key_of(task, "attacks")
    label = source.label if isinstance(source.label, str) and classes else None
    rows = _texts(attacks, file, f"{key}.file", f"{key}.text", warnings, label)
    benign = set(next(iter(classes.values()), ()))
    kept = [text for text, written in rows if written is None or written not in benign]
    if not kept:
        raise problem(
            f"{key}.file: {file}",
            f"holds no attacks: all of its {len(rows)} rows are labelled "
            f"{', '.join(map(repr, sorted(benign)))}, the first class, which nothing is to flag",
            f"Give rows that should be flagged, without the column {label!r} or with another "
            "class in it.",
        )
    if len(kept) < len(rows):
        gone = len(rows) - len(kept)
        warnings.append(f"{key}.file: {file}: {gone} rows of the first class were left out")
    return [Example(text, 1) for text in kept]


def _texts(
    table: Attacks | CleanHoldout,
    file: str,
    file_key: str,
    text_key: str,
    warnings: list[str],
    label: str | None = None,
) -> list[tuple[str, str | None]]:
    """Texts of a table, each with its label as written where the table has that column."""
    rows = read_table(table, file, file_key)
    names = list(rows[0])
    column = column_name(table.text, text_key, names, file)
    if label not in names or label == column:
        label = None
    found = [
        (
            as_text(row.get(column)).strip(),
            None if label is None else as_text(row.get(label)).strip(),
        )
        for row in rows
    ]
    kept = [(text, written) for text, written in found if text]
    if not kept:
        raise problem(f"{file_key}: {file}", f"column {column!r} is empty in all {len(rows)} rows")
    if len(kept) < len(found):
        gone = len(found) - len(kept)
        warnings.append(f"{file_key}: {file}: {gone} rows without a text were left out")
    return kept


def _halves(
    found: Sequence[Example], table: Attacks | CleanHoldout, key: str, seed: int, purpose: str
) -> Halves:
    rows = found[: table.limit]
    if len(rows) < 2:
        needed = "at least two are needed, one for the search and one for the test"
        if len(found) > 1:
            raise problem(f"{key}.limit", f"{table.limit}, but {needed}")
        raise problem(f"{key}.file: {table.file}", f"holds {len(rows)} row; {needed}")
    order = generator(seed, purpose).permutation(len(rows))
    middle = (len(rows) + 1) // 2
    return {
        "validation": tuple(rows[place] for place in order[:middle]),
        "test": tuple(rows[place] for place in order[middle:]),
    }
