"""The attacks and the clean hold-out that a task is judged by.

Search and final measurement must not see the same rows, so one half of a file goes with validation,
the other with the test split. Perturbations are made of each split's own rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coralx.config.data import TaskData, key_of
from coralx.config.tables import Attacks, CleanHoldout
from coralx.data.examples import Example
from coralx.data.perturbations import perturbed
from coralx.data.reading import read_table
from coralx.data.tables import TableRows, class_numbers, problem
from coralx.rng import generator
from coralx.text import brief, counted, left_out, listed

Halves = dict[str, tuple[Example, ...]]
"""Rows for `validation` and for `test`."""


def attacks_of(
    source: TaskData,
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
    source: TaskData,
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
            f"{_first_class(classes)}, the first class",
            "Give rows that should not be flagged.",
        )
    if len(kept) < len(rows):
        omitted = left_out(len(rows) - len(kept), "of other classes")
        warnings.append(f"{key}.file: {holdout.file}: {omitted}")
    return _halves([Example(text) for text in kept], holdout, key, seed, "clean-holdout")


def _attacks_in(
    attacks: Attacks,
    file: str,
    source: TaskData,
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
            f"{'is' if len(rows) == 1 else 'are'} labelled {_first_class(classes)}, the "
            "first class, which should not be flagged",
            f"Give rows that should be flagged, without the column {source.label!r} or with "
            "another class in it.",
        )
    if len(kept) < len(rows):
        omitted = left_out(len(rows) - len(kept), "of the first class")
        warnings.append(f"{key}.file: {file}: {omitted}")
    return [Example(text, 1) for text in kept]


def _first_class(classes: Mapping[str, Sequence[str]]) -> str:
    """The labels of the first class, as the data writes them."""
    return listed(sorted(next(iter(classes.values()), ())))


def _texts(
    table: Attacks | CleanHoldout,
    file: str,
    key: str,
    source: TaskData,
    task: str,
    classes: Mapping[str, Sequence[str]],
    warnings: list[str],
) -> list[tuple[str, int | None]]:
    """Texts of a table, each once, with the number of its class where the table has the column of
    labels that the task's own rows have. Raises ConfigError for a label that is in no class."""
    where = f"{key}.file: {file}"
    read = read_table(table, file, f"{key}.file", [table.text, source.label], warnings)
    count = len(read.rows)
    column = read.column(table.text, f"{key}.text")
    texts = [text.strip() for text in read.texts(column)]
    numbers = _numbers(read, texts, column, source, task, classes)
    class_of: dict[str, int | None] = {}
    for text, number in zip(texts, numbers, strict=True):
        if text:
            class_of.setdefault(text, number)
    empty = texts.count("")
    if not class_of:
        raise problem(where, f"column {column!r} is empty in all {counted(count, 'row')}")
    repeated = count - empty - len(class_of)
    if empty:
        warnings.append(f"{where}: {left_out(empty, 'without a text')}")
    if repeated:
        warnings.append(f"{where}: {left_out(repeated, 'with the text of an earlier row')}")
    return list(class_of.items())


def _numbers(
    table: TableRows,
    texts: Sequence[str],
    column: str,
    source: TaskData,
    task: str,
    classes: Mapping[str, Sequence[str]],
) -> list[int | None]:
    """The number of each row's class, None without a column of labels; `column` holds the texts.
    Raises ConfigError for a text whose label is in no class."""
    label, known = source.label, class_numbers(classes)
    # A column that is named by its number need not be the same one in another file.
    if not isinstance(label, str) or label not in table.columns or label == column or not known:
        return [None] * len(texts)
    numbers = []
    for row, (text, cell) in enumerate(zip(texts, table.texts(label), strict=True), 1):
        written = cell.strip()
        if text and written not in known:
            labels = [written for of_class in classes.values() for written in of_class]
            raise problem(
                table.where,
                f"row {row} has the label {brief(written)}, which belongs to no class",
                f"Known labels: {listed(labels)}. Correct the label, add it to "
                f"{key_of(task, 'labels')}, or leave the column {label!r} out.",
            )
        numbers.append(known.get(written))
    return numbers


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
