"""What a task is judged by beside its validation and test split: attacks, and clean rows.

One file serves both, as search and final measurement must not see the same rows: half of it goes
with validation, the other half with the test split. Perturbations are of each split's own rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coralx.config.data import Source, key_of
from coralx.config.tables import Attacks, CleanHoldout
from coralx.data.examples import Example
from coralx.data.perturbations import perturbed
from coralx.data.reading import read_table
from coralx.data.tables import class_numbers, problem
from coralx.rng import generator
from coralx.text import brief, counted, left_out, listed

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
                row,
                text=perturbed(row.text, kind, generator(seed, f"{split}-{kind}", index=n)),
                source=n,
            )
            for n, row in enumerate(positive)
            for kind in attacks.perturbations
        ]
        found[split] = tuple(made[: attacks.limit])
    return found


def clean_of(
    source: Source,
    task: str,
    classes: Mapping[str, Sequence[str]],
    seed: int,
    warnings: list[str],
) -> Halves:
    """The source's clean hold-out; nothing where it names none."""
    holdout = source.clean_holdout
    if holdout is None:
        return {}
    key = key_of(task, "clean_holdout")
    rows = _texts(holdout, holdout.file, key, source, task, classes, warnings)
    kept = [text for text, number in rows if number in (None, 0)]
    if not kept:
        raise problem(
            f"{key}.file: {holdout.file}",
            f"holds no clean rows: none of its {counted(len(rows), 'row')} is labelled "
            f"{_first(classes)}, the first class",
            "Give rows that nothing should flag.",
        )
    if len(kept) < len(rows):
        gone = left_out(len(rows) - len(kept), "of other classes")
        warnings.append(f"{key}.file: {holdout.file}: {gone}")
    return _halves([Example(text) for text in kept], holdout, key, seed, "clean-holdout")


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
    rows = _texts(attacks, file, key, source, task, classes, warnings)
    kept = [text for text, number in rows if number != 0]
    if not kept:
        raise problem(
            f"{key}.file: {file}",
            f"holds no attacks: all of its {counted(len(rows), 'row')} "
            f"{'is' if len(rows) == 1 else 'are'} labelled {_first(classes)}, the "
            "first class, which nothing is to flag",
            f"Give rows that should be flagged, without the column {source.label!r} or with "
            "another class in it.",
        )
    if len(kept) < len(rows):
        gone = left_out(len(rows) - len(kept), "of the first class")
        warnings.append(f"{key}.file: {file}: {gone}")
    return [Example(text, 1) for text in kept]


def _first(classes: Mapping[str, Sequence[str]]) -> str:
    """How the first class is written."""
    return listed(sorted(next(iter(classes.values()), ())))


def _texts(
    table: Attacks | CleanHoldout,
    file: str,
    key: str,
    source: Source,
    task: str,
    classes: Mapping[str, Sequence[str]],
    warnings: list[str],
) -> list[tuple[str, int | None]]:
    """Texts of a table, each once and with its class's number where the table has the source's
    column of labels. Raises ConfigError for labels that are in no class."""
    where = f"{key}.file: {file}"
    label = source.label
    read = read_table(table, file, f"{key}.file", [table.text, label], warnings)
    count = len(read.rows)
    column = read.column(table.text, f"{key}.text")
    index = class_numbers(classes)
    known = [written for labels in classes.values() for written in labels]
    is_labelled = (
        isinstance(label, str) and label in read.columns and label != column and bool(index)
    )
    found: dict[str, int | None] = {}
    empty = 0
    texts = map(str.strip, read.texts(column))
    labels = map(str.strip, read.texts(str(label)) if is_labelled else [""] * count)
    for number, (text, written) in enumerate(zip(texts, labels, strict=True), 1):
        if not text:
            empty += 1
        elif is_labelled and written not in index:
            raise problem(
                where,
                f"a row has the label {brief(written)}, which is in no class (row {number})",
                f"Known labels: {listed(known)}. Correct it, add it to "
                f"{key_of(task, 'labels')}, or leave the column {label!r} out.",
            )
        else:
            found.setdefault(text, index[written] if is_labelled else None)
    if not found:
        raise problem(where, f"column {column!r} is empty in all {counted(count, 'row')}")
    again = count - empty - len(found)
    for gone, what in ((empty, "without a text"), (again, "said before")):
        if gone:
            warnings.append(f"{where}: {left_out(gone, what)}")
    return list(found.items())


def _halves(
    found: Sequence[Example], table: Attacks | CleanHoldout, key: str, seed: int, purpose: str
) -> Halves:
    rows = found[: table.limit]
    if len(rows) < 2:
        needed = "at least two are needed, one for the search and one for the test"
        if len(found) > 1:
            raise problem(f"{key}.limit", f"{table.limit}, but {needed}")
        raise problem(f"{key}.file: {table.file}", f"holds {counted(len(rows), 'row')}; {needed}")
    order = generator(seed, purpose).permutation(len(rows))
    middle = (len(rows) + 1) // 2
    return {
        "validation": tuple(rows[place] for place in order[:middle]),
        "test": tuple(rows[place] for place in order[middle:]),
    }
