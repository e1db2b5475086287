"""Each task's examples, split into train, validation and test, in the run's one fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coralx.config.data import Data, TaskData, key_of
from coralx.config.metric_catalogue import TaskKind
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
    """The data of one task."""

    train: tuple[Example, ...]
    """In the run's one fixed order, of which each stage reads a prefix."""

    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    labels: tuple[str, ...]
    """The names of the classes, the negative one first; none for sft."""

    warnings: tuple[str, ...] = ()

    attacks: Halves = field(default_factory=dict)
    """What `safety` is measured by."""

    clean: Halves = field(default_factory=dict)
    """The clean hold-out, which `false_positive_cost` is measured by."""

    @property
    def splits(self) -> dict[str, tuple[Example, ...]]:
        return {split: getattr(self, split) for split in SPLITS}


def load_all(
    data: Data, seed: int, task: TaskKind, revision: int = REVISION
) -> dict[str, Examples]:
    """The examples of each task of a run, by name; the task of a run without named ones is called
    "". `revision`: in which version's order (see `run_facts.Settings`). Raises ConfigError naming
    key and file, with a hint what to do."""
    return {
        name: load_examples(source, seed, task, name, revision)
        for name, source in data.sources.items()
    }


def load_examples(
    source: TaskData,
    seed: int,
    task: TaskKind = "sequence-classification",
    name: str = "",
    revision: int = REVISION,
) -> Examples:
    """All splits of one source, which is called `name` in `data.tasks`. Raises as `load_all`."""
    warnings: list[str] = []
    given = [split for split in SPLITS if getattr(source, split) is not None]
    read = read_instructions if task == "sft" else read_labelled
    files, classes = read(source, name, given, warnings)
    labels = tuple(classes)
    warnings += _lookalike_warnings(source, name, labels, files)
    splits = _split(source, name, labels, files, seed, revision)
    attacks = attacks_of(source, name, classes, splits, seed, warnings)
    clean = clean_of(source, name, classes, seed, warnings)
    for warning in (
        *_duplicate_warnings(splits, SPLIT_PAIRS),
        *_duplicate_warnings({**splits, "attacks": _all(attacks)}, [("train", "attacks")]),
        *_duplicate_warnings({**splits, "clean": _all(clean)}, [("train", "clean")]),
    ):
        warnings.append(f"{name}: {warning}" if name else warning)
    return Examples(**splits, labels=labels, warnings=tuple(warnings), attacks=attacks, clean=clean)


def _split(
    source: TaskData,
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
            f"the fractions split off add up to {sum(fractions):g}; nothing is left to train on",
            f"Lower {' or '.join(key_of(task, f'{split}_fraction') for split in missing)}.",
        )
    rows = files["train"]
    cut = _cut_by_revision_1 if revision < 2 else _cut
    train, *parts, rest = cut(rows, fractions, source.limit, seed)
    splits = {"train": tuple(rows[row] for row in train)}
    for split, places in zip(missing, parts, strict=True):
        splits[split] = tuple(rows[row] for row in places)
    ordered = revision1.stratified_order if revision < 2 else stratified_order
    for split, own_rows in files.items():
        if split != "train":  # in order, too: early stages are scored on the first rows
            places = ordered(_strata(own_rows), generator(seed, f"{split}-order"))
            splits[split] = tuple(own_rows[row] for row in places)
    if labels:
        unlimited = [rows[row] for row in rest]
        require_all_classes(source, task, labels, splits, files, unlimited)
    if not splits["train"]:
        raise problem(
            key_of(task, "train"),
            f"{counted(len(rows), 'row')}: too few for three splits",
            f"Give more rows, or files of their own in {key_of(task, 'validation')} and "
            f"{key_of(task, 'test')}.",
        )
    return splits


def _cut(
    rows: Sequence[Example], fractions: Sequence[float], limit: int | None, seed: int
) -> list[Rows]:
    """The training rows, the parts that are split off, and the rows that remain without a limit."""
    rng, strata = generator(seed, "data-order"), _strata(rows)
    *parts, rest = stratified_parts(strata, part_sizes(len(rows), fractions), rng)
    if limit is None or limit >= len(rest):
        return [rest, *parts, rest]
    rest_strata = [strata[row] for row in rest]
    # The draws are the same for every limit, so that a greater one keeps the rows of a smaller.
    first, _ = stratified_parts(
        rest_strata, [limit], rng, is_rest_used=False, population=Counter(strata)
    )
    return [rest[first], *parts, rest]


def _cut_by_revision_1(
    rows: Sequence[Example], fractions: Sequence[float], limit: int | None, seed: int
) -> list[Rows]:
    order = revision1.stratified_order(_strata(rows), generator(seed, "data-order"))
    *parts, rest = revision1.split_off(order, fractions)
    return [rest[:limit], *parts, rest]


def _strata(rows: Sequence[Example]) -> list[int]:
    return [row.label for row in rows]


def _lookalike_warnings(
    source: TaskData, task: str, labels: Sequence[str], files: Mapping[str, Sequence[Example]]
) -> list[str]:
    """Warnings about names of classes and of groups that may be the same, and about rows without a
    group."""
    examples = _all(files)
    classes = Counter(labels[row.label] for row in examples) if labels else Counter[str]()
    warnings = lookalikes(
        key_of(task, "label"),
        "classes",
        classes,
        f"if they are one, map both to it: {key_of(task, 'labels')} may be a mapping from class to "
        "written labels",
    )
    if source.group is None:
        return warnings
    key, groups = key_of(task, "group"), Counter(row.group for row in examples)
    if groups[""]:
        warnings.append(
            f"{key}: {counted(groups[''], 'row')} of {len(examples):,} have no group; they count "
            "as a group of their own"
        )
    return warnings + lookalikes(key, "groups", groups, "if they are one, write them alike")


def _all(parts: Mapping[str, Sequence[Example]]) -> list[Example]:
    return [example for rows in parts.values() for example in rows]


def _duplicate_warnings(
    splits: Mapping[str, Sequence[Example]], pairs: Sequence[tuple[str, str]]
) -> list[str]:
    """Warnings about texts of a pair's second split that its first one has, too."""
    warnings = []
    for first, second in pairs:
        known = {example.text for example in splits[first]}
        count = sum(example.text in known for example in splits[second])
        if count:
            warnings.append(
                f"{count} of {counted(len(splits[second]), f'{second} text')} "
                f"{'stands' if count == 1 else 'stand'} in the {first} split, too: "
                "figures will look better than they are"
            )
    return warnings
