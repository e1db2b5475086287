"""Examples from tables, split into train, validation and test, in the run's one fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coralx.config.data import Data, Source, key_of
from coralx.config.metrics import Task
from coralx.data.examples import Example
from coralx.data.instructions import read_instructions
from coralx.data.judged import Halves, attacks_of, clean_of
from coralx.data.labelled import read_labelled
from coralx.data.subsets import split_off, stratified_order
from coralx.data.tables import SPLITS, problem
from coralx.rng import generator

SPLIT_PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))


@dataclass(frozen=True)
class Examples:
    """The three splits of one task; training rows stand in the run's one fixed order. `labels` are
    the names of the classes; none for sft. `attacks` and `clean` are what it is judged by beside
    validation and test."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    attacks: Halves = field(default_factory=dict)
    clean: Halves = field(default_factory=dict)


def load_all(data: Data, seed: int, task: Task) -> dict[str, Examples]:
    """The examples of each task of a run, by name; that of a run without named ones is called "".
    Raises ConfigError naming key, file and way out."""
    return {name: load_examples(source, seed, task, name) for name, source in data.sources.items()}


def load_examples(
    source: Source, seed: int, task: Task = "sequence-classification", name: str = ""
) -> Examples:
    """All splits of one source, which is called `name` in `data.tasks`. Raises as `load_all`."""
    warnings: list[str] = []
    given = [split for split in SPLITS if getattr(source, split) is not None]
    read = read_instructions if task == "sft" else read_labelled
    splits, classes = read(source, name, given, warnings)
    labels = tuple(classes)
    missing = [split for split in ("validation", "test") if split not in splits]
    order = stratified_order(
        [example.label for example in splits["train"]], generator(seed, "data-order")
    )
    fractions = [getattr(source, f"{split}_fraction") for split in missing]
    if sum(fractions) >= 1:
        raise problem(
            f"data.tasks.{name}" if name else "data",
            f"the fractions split off add up to {sum(fractions):g}; nothing is left",
        )
    *off, rest = split_off(order, fractions)
    for split, rows in zip(missing, off, strict=True):
        splits[split] = [splits["train"][row] for row in rows]
    train = tuple(splits["train"][row] for row in rest[: source.limit])
    for split in ("validation", "test"):
        if split not in missing:  # so that its first rows are a fair sample of it
            strata = [example.label for example in splits[split]]
            rows = stratified_order(strata, generator(seed, f"{split}-order"))
            splits[split] = [splits[split][row] for row in rows]
    _require_all_classes(key_of(name, "train"), train, labels, name)
    if not train:
        few = f"its {len(order)} rows are too few for three splits"
        raise problem(key_of(name, "train"), few)
    for split in ("validation", "test"):
        _require_all_classes(key_of(name, split), splits[split], labels, name)
    attacks = attacks_of(source, name, classes, splits, seed, warnings)
    clean = clean_of(source, name, classes, seed, warnings)
    warnings += [
        f"{name}: {found}" if name else found
        for found in (
            *_duplicates({**splits, "train": train}, SPLIT_PAIRS),
            *_duplicates({"train": train, "attacks": _all(attacks)}, [("train", "attacks")]),
            *_duplicates({"train": train, "clean": _all(clean)}, [("train", "clean")]),
        )
    ]
    return Examples(
        train,
        tuple(splits["validation"]),
        tuple(splits["test"]),
        labels,
        tuple(warnings),
        attacks,
        clean,
    )


def _require_all_classes(
    where: str, rows: Sequence[Example], names: Sequence[str], task: str
) -> None:
    present = Counter(example.label for example in rows)
    absent = [name for i, name in enumerate(names) if not present[i]]
    if absent:
        raise problem(
            where,
            f"no row of class {', '.join(map(repr, absent))} among its {len(rows)} rows",
            "Every split needs every class: give more rows, or correct "
            f"{key_of(task, 'label')} and {key_of(task, 'labels')}.",
        )


def _all(halves: Halves) -> list[Example]:
    return [example for rows in halves.values() for example in rows]


def _duplicates(
    splits: Mapping[str, Sequence[Example]], pairs: Sequence[tuple[str, str]]
) -> list[str]:
    """Warnings about texts that stand in both of a pair."""
    texts = {name: {example.text for example in splits[name]} for name in splits}
    found = []
    for held, other in pairs:
        count = sum(example.text in texts[held] for example in splits[other])
        if count:
            found.append(
                f"{count} of {len(splits[other])} {other} texts stand in the {held} split, too: "
                "its figures will look better than they are"
            )
    return found
