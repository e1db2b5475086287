"""The attacks and the clean hold-out that a task is judged by.

Search and final measurement must not see the same rows, so one half of a file goes with validation,
the other with the test split. Perturbations are made of each split's own rows.
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
    """The task's attacks; none where its config names none. Raises ConfigError for a file that has
    fewer than two."""
    attacks = source.attacks
    if attacks is None:
        return {}
    if attacks.file is not None:
        rows = _attacks_in(attacks, attacks.file, source, task, classes, warnings)
        return _halves(rows, attacks, key_of(task, "attacks"), seed, "attacks")
    halves: Halves = {}
    for split in ("validation", "test"):
        positive = [example for example in splits[split] if example.label > 0]
        rewritings = []
        for number, row in enumerate(positive):
            for kind in attacks.perturbations:
                rng = generator(seed, f"{split}-{kind}", index=number)
                text = perturbed(row.text, kind, rng)
                rewritings.append(replace(row, text=text, source=number))
        halves[split] = tuple(rewritings[: attacks.limit])
    return halves


def clean_of(
    source: Source,
    task: str,
    classes: Mapping[str, Sequence[str]],
    seed: int,
    warnings: list[str],
) -> Halves:
    """The task's clean hold-out; nothing where its config names none. Raises ConfigError for a file
    that has fewer than two clean rows."""
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
            "Give rows that should not be flagged.",
        )
    if len(kept) < len(rows):
        omitted = left_out(len(rows) - len(kept), "of other classes")
        warnings.append(f"{key}.file: {holdout.file}: {omitted}")
    return _halves([Example(text) for text in kept], holdout, key, seed, "clean-holdout")


def _attacks_in(
    attacks: Attacks,
    file: str,
    source: Source,
    task: str,
    classes: Mapping[str, Sequence[str]],
    warnings: list[str],
) -> list[Example]:
    """The rows of a file of attacks, but for those of the first class where it has a column of
    labels: what should not be flagged is no attack."""
    key = key_of(task, "attacks")
    rows = _texts(attacks, file, key, source, task, classes, warnings)
    kept = [text for text, number in rows if number != 0]
    if not kept:
        raise problem(
            f"{key}.file: {file}",
            f"holds no attacks: all of its {counted(len(rows), 'row')} "
            f"{'is' if len(rows) == 1 else 'are'} labelled {_first(classes)}, the "
            "first class, which should not be flagged",
            f"Give rows that should be flagged, without the column {source.label!r} or with "
            "another class in it.",
        )
    if len(kept) < len(rows):
        omitted = left_out(len(rows) - len(kept), "of the first class")
        warnings.append(f"{key}.file: {file}: {omitted}")
    return [Example(text, 1) for text in kept]


def _first(classes: Mapping[str, Sequence[str]]) -> str:
    """The labels of the first class, as the data writes them."""
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
    """Texts of a table, each once, with the number of its class where the table has the column of
    labels that the task's own rows have. Raises ConfigError for a label that is in no class."""
    where = f"{key}.file: {file}"
    label = source.label
    read = read_table(table, file, f"{key}.file", [table.text, label], warnings)
    count = len(read.rows)
    column = read.column(table.text, f"{key}.text")
    numbers = class_numbers(classes)
    known = [written for labels in classes.values() for written in labels]
    # A column that is named by its number need not be the same one in another file.
    is_labelled = (
        isinstance(label, str) and label in read.columns and label != column and bool(numbers)
    )
    class_of: dict[str, int | None] = {}
    empty = 0
    texts = map(str.strip, read.texts(column))
    labels = map(str.strip, read.texts(str(label)) if is_labelled else [""] * count)
    for number, (text, written) in enumerate(zip(texts, labels, strict=True), 1):
        if not text:
            empty += 1
        elif is_labelled and written not in numbers:
            raise problem(
                where,
                f"row {number} has the label {brief(written)}, which belongs to no class",
                f"Known labels: {listed(known)}. Correct the label, add it to "
                f"{key_of(task, 'labels')}, or leave the column {label!r} out.",
            )
        else:
            class_of.setdefault(text, numbers[written] if is_labelled else None)
    if not class_of:
        raise problem(where, f"column {column!r} is empty in all {counted(count, 'row')}")
    repeated = count - empty - len(class_of)
    for omitted, which in (
        (empty, "without a text"),
        (repeated, "with the text of an earlier row"),
    ):
        if omitted:
            warnings.append(f"{where}: {left_out(omitted, which)}")
    return list(class_of.items())


def _halves(
    examples: Sequence[Example], table: Attacks | CleanHoldout, key: str, seed: int, purpose: str
) -> Halves:
    rows = examples[: table.limit]
    if len(rows) < 2:
        needed = "at least two are needed, one for the search and one for the test"
        if len(examples) > 1:
            raise problem(f"{key}.limit", f"{table.limit}, but {needed}")
        raise problem(f"{key}.file: {table.file}", f"holds {counted(len(rows), 'row')}; {needed}")
    order = generator(seed, purpose).permutation(len(rows))
    middle = (len(rows) + 1) // 2
    return {
        "validation": tuple(rows[place] for place in order[:middle]),
        "test": tuple(rows[place] for place in order[middle:]),
    }
