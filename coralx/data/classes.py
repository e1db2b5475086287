"""Which classes the data holds, how many rows each has, and what is wrong with that."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from coralx.config.data import Source, key_of
from coralx.data.examples import Example
from coralx.data.tables import SPLITS, problem
from coralx.errors import ConfigError
from coralx.records.run_facts import Classes
from coralx.text import brief, counted, enumerated, listed

Splits = Mapping[str, Sequence[Example]]


def classes_of(task: str, labels: Sequence[str], splits: Splits) -> Classes:
    """The classes of a task with their rows in each split."""
    return Classes(task, tuple(labels), {name: _counts(splits[name], labels) for name in splits})


def _counts(rows: Sequence[Example], labels: Sequence[str]) -> tuple[int, ...]:
    found = Counter(row.label for row in rows)
    return tuple(found[number] for number in range(len(labels)))


# -- splits without a class ------------------------------------------------------------------------


def require_all_classes(
    source: Source,
    task: str,
    labels: Sequence[str],
    splits: Splits,
    files: Splits,
    unlimited: Sequence[Example],
) -> None:
    """Raise ConfigError where a split lacks a class, naming the key that left it none.

    `files` are the rows of each file that was read, by its split; `unlimited` are those that the
    train split has before `data.limit`.
    """
    for split, rows in splits.items():
        file = split if split in files else "train"
        in_file = _counts(files[file], labels)
        absent = [n for n, count in enumerate(_counts(rows, labels)) if not count]
        here, size = key_of(task, file), counted(len(files[file]), "row")
        if unknown := [n for n in absent if not in_file[n]]:
            raise problem(
                here,
                f"no row of class {listed(labels[n] for n in unknown)} among its {size}",
                "Every split needs rows of every class: give more rows, or correct "
                f"{key_of(task, 'label')} and {key_of(task, 'labels')}.",
            )
        if absent:
            raise _left_without(source, task, split, labels, absent, files, unlimited)


def _left_without(
    source: Source,
    task: str,
    split: str,
    labels: Sequence[str],
    absent: Sequence[int],
    files: Splits,
    unlimited: Sequence[Example],
) -> ConfigError:
    """The error for a split that has no row of the classes `absent`, though the file of the train
    split, which it is cut from, has some."""
    in_file, before = _counts(files["train"], labels), _counts(unlimited, labels)
    causes = [f"{part}_fraction" for part in _split_off(split, files)]
    if split == "train" and all(before[n] for n in absent):
        causes = ["limit"]
    elif split == "train":
        absent = [n for n in absent if not before[n]]
    few = min(in_file[n] for n in absent) < 1 + sum(part not in files for part in SPLITS)
    named = enumerated(f"{brief(labels[n])} ({counted(in_file[n], 'row')})" for n in absent)
    return problem(
        " and ".join(key_of(task, cause) for cause in causes),
        f"{' and '.join(f'{getattr(source, cause):g}' for cause in causes)} "
        f"{'leave' if len(causes) > 1 else 'leaves'} no row of class {named} in the {split} split; "
        f"{key_of(task, 'train')} has {counted(len(files['train']), 'row')} in all",
        _way_out(task, split, causes, can_change=not few),
    )


def _split_off(split: str, files: Splits) -> list[str]:
    """The splits that take rows from the file of the train split: the one that came out too small,
    or all that left too few for training."""
    taken = [part for part in ("validation", "test") if part not in files]
    return [split] if split in taken else taken


def _way_out(task: str, split: str, causes: Sequence[str], *, can_change: bool) -> str:
    """`can_change`: there are enough rows of the class for every split to have one."""
    keys = " or ".join(key_of(task, cause) for cause in causes)
    is_limit = causes == ["limit"]
    ways = [f"{'lower' if split == 'train' and not is_limit else 'raise'} {keys}"]
    ways = ways if can_change or is_limit else []
    ways += [] if is_limit else ["give validation and test files of their own"]
    ways += ["give more rows of it", f"merge it with another in {key_of(task, 'labels')}"]
    return (
        f"Every split needs rows of every class: {', '.join(ways[:-1])}, or {ways[-1]} (a mapping "
        f"from class to labels). If it is no class, correct {key_of(task, 'label')}."
    )


# -- names that may be the same --------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?\d+\.\d*")


def lookalikes(key: str, what: str, rows: Mapping[str, int], way_out: str) -> list[str]:
    """A warning for names that differ only in how they are written; `rows` tells how many rows
    each name has, `what` what they name, and `key` where the config has their column."""
    alike: dict[str, list[str]] = {}
    for name in rows:
        alike.setdefault(_normalised(name), []).append(name)
    found = []
    for names in alike.values():
        if len(names) > 1:
            told = enumerated(f"{brief(name)} ({counted(rows[name], 'row')})" for name in names)
            found.append(
                f"{key}: the {what} {told} differ only in how they are written (case, spaces, "
                f"Unicode form), and count as {len(names)} {what}; {way_out}"
            )
    return found


def _normalised(name: str) -> str:
    """Equal for names that are the same but for case, white space, invisible characters, Unicode's
    compatible forms (NFKC, Unicode Standard Annex 15), and zeros behind a number's point."""
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    plain = " ".join(unicodedata.normalize("NFKC", visible).casefold().split())
    if _NUMBER.fullmatch(plain):
        return plain.rstrip("0").rstrip(".")
    return unicodedata.normalize("NFKC", plain)
