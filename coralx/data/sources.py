"""Examples from tables, split into train, validation and test, in the run's one fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coralx.config.metrics import Task
from coralx.config.schema import Data
from coralx.data.examples import Example
from coralx.data.instructions import read_instructions
from coralx.data.labelled import read_labelled
from coralx.data.subsets import split_off, stratified_order
from coralx.data.tables import problem
from coralx.rng import generator


@dataclass(frozen=True)
class Examples:
    """The three splits; training rows stand in the run's one fixed order. `labels` are the names
    of the classes; none for sft."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def load_examples(data: Data, seed: int, task: Task = "sequence-classification") -> Examples:
    """All splits of a config's data. Raises ConfigError naming key, file and way out."""
    warnings: list[str] = []
    given = [name for name in ("train", "validation", "test") if getattr(data, name) is not None]
    read = read_instructions if task == "sft" else read_labelled
    splits, names = read(data, given, warnings)
    missing = [name for name in ("validation", "test") if name not in splits]
    order = stratified_order(
        [example.label for example in splits["train"]], generator(seed, "data-order")
    )
    fractions = [getattr(data, f"{name}_fraction") for name in missing]
    if sum(fractions) >= 1:
        raise problem(
            "data", f"the fractions split off add up to {sum(fractions):g}; nothing is left"
        )
    *off, rest = split_off(order, fractions)
    for name, rows in zip(missing, off, strict=True):
        splits[name] = [splits["train"][row] for row in rows]
    train = tuple(splits["train"][row] for row in rest[: data.limit])
    for name in ("validation", "test"):
        if name not in missing:  # so that its first rows are a fair sample of it
            strata = [example.label for example in splits[name]]
            rows = stratified_order(strata, generator(seed, f"{name}-order"))
            splits[name] = [splits[name][row] for row in rows]
    _require_all_classes("data.train", train, names)
    if not train:
        raise problem("data.train", f"its {len(order)} rows are too few for three splits")
    for name in ("validation", "test"):
        _require_all_classes(f"data.{name}", splits[name], names)
    warnings += _duplicates({**splits, "train": train})
    return Examples(
        train, tuple(splits["validation"]), tuple(splits["test"]), names, tuple(warnings)
    )


def _require_all_classes(where: str, rows: Sequence[Example], names: Sequence[str]) -> None:
    present = Counter(example.label for example in rows)
    absent = [name for i, name in enumerate(names) if not present[i]]
    if absent:
        raise problem(
            where,
            f"no row of class {', '.join(map(repr, absent))} among its {len(rows)} rows",
            "Every split needs every class: give more rows, or correct data.label and data.labels.",
        )


def _duplicates(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Warnings about texts that stand in more than one split."""
    texts = {name: {example.text for example in splits[name]} for name in splits}
    found = []
    for held, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        count = sum(example.text in texts[held] for example in splits[other])
        if count:
            found.append(
                f"{count} of {len(splits[other])} {other} texts stand in the {held} split, too: "
                "its figures will look better than they are"
            )
    return found
