"""Examples from tables, split into train, validation and test, in the run's one fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coralx.config.data import Data, Source, key_of
from coralx.config.metric_catalogue import Task
from coralx.data import order_revision1 as revision1
from coralx.data.attacks import Halves, attacks_of, clean_of
from coralx.data.classes import lookalikes, require_all_classes
from coralx.data.examples import Example
from coralx.data.instructions import read_instructions
from coralx.data.labelled import read_labelled
from coralx.data.order import Rows, part_sizes, stratified_order, stratified_parts
from coralx.data.tables import SPLITS, problem
from coralx.records.run_facts import REVISION
from coralx.rng import generator
from coralx.text import counted

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

    @property
    def splits(self) -> dict[str, tuple[Example, ...]]:
        return {split: getattr(self, split) for split in SPLITS}


def load_all(data: Data, seed: int, task: Task, revision: int = REVISION) -> dict[str, Examples]:
    """The examples of each task of a run, by name; that of a run without named ones is called "".
    `revision`: in which version's order (see `run_facts.Settings`). Raises ConfigError naming key,
    file and way out."""
    return {
        name: load_examples(source, seed, task, name, revision)
        for name, source in data.sources.items()
    }


def load_examples(
    source: Source,
    seed: int,
    task: Task = "sequence-classification",
    name: str = "",
    revision: int = REVISION,
) -> Examples:
    """All splits of one source, which is called `name` in `data.tasks`. Raises as `load_all`."""
    warnings: list[str] = []
    given = [split for split in SPLITS if getattr(source, split) is not None]
    read = read_instructions if task == "sft" else read_labelled
    files, classes = read(source, name, given, warnings)
    labels = tuple(classes)
    warnings += _alike(source, name, labels, files)
    splits = _split(source, name, labels, files, seed, revision)
    attacks = attacks_of(source, name, classes, splits, seed, warnings)
    clean = clean_of(source, name, classes, seed, warnings)
    warnings += [
        f"{name}: {found}" if name else found
        for found in (
            *_duplicates(splits, SPLIT_PAIRS),
            *_duplicates({**splits, "attacks": _all(attacks)}, [("train", "attacks")]),
            *_duplicates({**splits, "clean": _all(clean)}, [("train", "clean")]),
        )
    ]
    return Examples(**splits, labels=labels, warnings=tuple(warnings), attacks=attacks, clean=clean)


def _split(
    source: Source,
    task: str,
    labels: Sequence[str],
    files: Mapping[str, Sequence[Example]],
    seed: int,
    revision: int,
) -> dict[str, tuple[Example, ...]]:
    """The three splits, stratified, of the rows of each file by the split that it was read for.
    Raises ConfigError where one comes out empty or without a class."""
    missing = [split for split in SPLITS if split not in files]
    fractions = [getattr(source, f"{split}_fraction") for split in missing]
    if sum(fractions) >= 1:
        raise problem(
            f"data.tasks.{task}" if task else "data",
            f"the fractions split off add up to {sum(fractions):g}; nothing is left",
        )
    whole = files["train"]
    cut = _cut_by_revision_1 if revision < 2 else _cut
    train, *off, rest = cut(whole, fractions, source.limit, seed)
    splits = {"train": tuple(whole[row] for row in train)}
    for split, places in zip(missing, off, strict=True):
        splits[split] = tuple(whole[row] for row in places)
    for split, rows in files.items():
        if split != "train":  # so that its first rows are a fair sample of it
            rng = generator(seed, f"{split}-order")
            ordered = revision1.stratified_order if revision < 2 else stratified_order
            places = ordered(_strata(rows), rng)
            splits[split] = tuple(rows[row] for row in places)
    if labels:
        unlimited = [whole[row] for row in rest]
        require_all_classes(source, task, labels, splits, files, unlimited)
    if not splits["train"]:
        raise problem(
            key_of(task, "train"),
            f"{counted(len(whole), 'row')}: too few for three splits",
            f"Give more rows, or files of their own in {key_of(task, 'validation')} and "
            f"{key_of(task, 'test')}.",
        )
    return splits


def _cut(
    rows: Sequence[Example], fractions: Sequence[float], limit: int | None, seed: int
) -> list[Rows]:
    """The training rows, the parts that are split off, and what these leave."""
    rng, strata = generator(seed, "data-order"), _strata(rows)
    *off, rest = stratified_parts(strata, part_sizes(len(rows), fractions), rng)
    if limit is None or limit >= len(rest):
        return [rest, *off, rest]
    among = [strata[row] for row in rest]
    # The draws are the same for every limit, so that a greater one keeps the rows of a smaller.
    first, _ = stratified_parts(among, [limit], rng, is_rest_used=False)
    return [rest[first], *off, rest]


def _cut_by_revision_1(
    rows: Sequence[Example], fractions: Sequence[float], limit: int | None, seed: int
) -> list[Rows]:
    order = revision1.stratified_order(_strata(rows), generator(seed, "data-order"))
    *off, rest = revision1.split_off(order, fractions)
    return [rest[:limit], *off, rest]


def _strata(rows: Sequence[Example]) -> list[int]:
    return [row.label for row in rows]


def _alike(
    source: Source, task: str, labels: Sequence[str], files: Mapping[str, Sequence[Example]]
) -> list[str]:
    """Warnings about names of classes and of groups that may be the same, and about rows without a
    group."""
    every = [row for rows in files.values() for row in rows]
    classes = Counter(labels[row.label] for row in every) if labels else Counter[str]()
    found = lookalikes(
        key_of(task, "label"),
        "classes",
        classes,
        f"if they are one, map both to it: {key_of(task, 'labels')} may be a mapping from class to "
        "written labels",
    )
    if source.group is None:
        return found
    key, groups = key_of(task, "group"), Counter(row.group for row in every)
    if groups[""]:
        found.append(
            f"{key}: {counted(groups[''], 'row')} of {len(every):,} have no group; they count as "
            "a group of their own"
        )
    return found + lookalikes(key, "groups", groups, "if they are one, write them alike")


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
                f"{count} of {counted(len(splits[other]), f'{other} text')} "
                f"{'stands' if count == 1 else 'stand'} in the {held} split, too: "
                "its figures will look better than they are"
            )
    return found
