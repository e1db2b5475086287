"""Which classes the data holds, how many rows each has, and what is wrong with that."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from coralx.config.data import Source, key_of
from coralx.data.examples import Example
from coralx.data.tables import problem
from coralx.facts import Classes
from coralx.printable import brief, enumerated, listed
from coralx.wording import counted

Splits = Mapping[str, Sequence[Example]]


def classes_of(task: str, labels: Sequence[str], splits: Splits) -> Classes:
    """The classes of a task with their rows in each split."""
    return Classes(task, tuple(labels), {name: _counts(splits[name], labels) for name in splits})


def _counts(rows: Sequence[Example], labels: Sequence[str]) -> tuple[int, ...]:
    found = Counter(row.label for row in rows)
    return tuple(found[number] for number in range(len(labels)))


# -- splits without a class ------------------------------------------------------------------------


def require_all_classes(
    source: Source, task: str, labels: Sequence[str], splits: Splits, files: Splits, unlimited: int
) -> None:
    """Raise ConfigError where a split lacks a class, naming the key that left it none.

    `files` are the rows of each file that was read, by its split; `unlimited` is how many rows of
    that of the train split remain for it before `data.limit`.
    """
    for split, rows in splits.items():
        file = split if split in files else "train"
        in_file = _counts(files[file], labels)
        absent = [n for n, count in enumerate(_counts(rows, labels)) if not count]
        unknown = [n for n in absent if not in_file[n]]
        here, size = key_of(task, file), counted(len(files[file]), "row")
        if unknown:
            raise problem(
                here,
                f"no row of class {listed(labels[n] for n in unknown)} among its {size}",
                "Every split needs rows of every class: give more rows, or correct "
                f"{key_of(task, 'label')} and {key_of(task, 'labels')}.",
            )
        if absent:
            is_cut = split == "train" and len(rows) < unlimited
            causes = ["limit"] if is_cut else [f"{p}_fraction" for p in _split_off(split, files)]
            named = enumerated(f"{in_file[n]:,} of class {brief(labels[n])}" for n in absent)
            keys = " and ".join(key_of(task, cause) for cause in causes)
            values = " and ".join(f"{getattr(source, cause):g}" for cause in causes)
            raise problem(
                keys,
                f"{values} {'leave' if len(causes) > 1 else 'leaves'} no row of class "
                f"{listed(labels[n] for n in absent)} in the {split} split; {here} has "
                f"{size}, {named}",
                f"Every split needs rows of every class: {_way_out(task, split, causes)}.",
            )


def _split_off(split: str, files: Splits) -> list[str]:
    """The splits that take rows from the file of the train split: the one that came out too small,
    or all that left too few for training."""
    taken = [part for part in ("validation", "test") if part not in files]
    return [split] if split in taken else taken


def _way_out(task: str, split: str, causes: Sequence[str]) -> str:
    keys = " or ".join(key_of(task, cause) for cause in causes)
    first = f"lower {keys}" if split == "train" and causes != ["limit"] else f"raise {keys}"
    merge = f"merge it with another in {key_of(task, 'labels')} (a mapping)"
    own = "" if causes == ["limit"] else "give validation and test files of their own, "
    return f"{first}, {own}give more rows of it, or {merge}"


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
