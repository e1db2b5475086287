"""Which classes the data has, how many rows each; errors for splits that lack one, and warnings for
names that may mean the same."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from coralx.config.data import TaskData, key_of
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
    counts = Counter(row.label for row in rows)
    return tuple(counts[number] for number in range(len(labels)))


# -- splits without a class ------------------------------------------------------------------------


def require_all_classes(
    source: TaskData,
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
        file = split if split in files else "train"  # others are cut from the training file
        in_file = _counts(files[file], labels)
        absent = [n for n, count in enumerate(_counts(rows, labels)) if not count]
        missing = [n for n in absent if not in_file[n]]
        if missing:
            raise problem(
                key_of(task, file),
                f"no row of class {listed(labels[n] for n in missing)} among its "
                f"{counted(len(files[file]), 'row')}",
                "Every split needs rows of every class: give more rows, or correct "
                f"{key_of(task, 'label')} and {key_of(task, 'labels')}.",
            )
        if absent:
            raise _cut_without(source, task, split, labels, absent, files, unlimited)


def _cut_without(
    source: TaskData,
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
    # The train split loses a class to the limit, or to the parts that were cut off before it; if
    # some classes to the one and some to the other, those of the latter are named first.
    if split == "train" and all(before[n] for n in absent):
        causes = ["limit"]
    elif split == "train":
        absent = [n for n in absent if not before[n]]
    splits_to_fill = 1 + sum(part not in files for part in SPLITS)
    is_enough = min(in_file[n] for n in absent) >= splits_to_fill
    values = " and ".join(f"{getattr(source, cause):g}" for cause in causes)
    verb = "leave" if len(causes) > 1 else "leaves"
    named = enumerated(f"{brief(labels[n])} ({counted(in_file[n], 'row')})" for n in absent)
    return problem(
        " and ".join(key_of(task, cause) for cause in causes),
        f"{values} {verb} no row of class {named} in the {split} split; "
        f"{key_of(task, 'train')} has {counted(len(files['train']), 'row')} in all",
        _way_out(task, split, causes, is_enough=is_enough),
    )


def _split_off(split: str, files: Splits) -> list[str]:
    """The splits that are cut from the training file and are to blame: the one that came out too
    small, or for the train split all of them."""
    cut = [part for part in ("validation", "test") if part not in files]
    return [split] if split in cut else cut


def _way_out(task: str, split: str, causes: Sequence[str], *, is_enough: bool) -> str:
    """What to do; `is_enough`: the file has rows enough of the class for every split."""
    keys = " or ".join(key_of(task, cause) for cause in causes)
    is_limit = causes == ["limit"]
    ways = []
    if is_enough or is_limit:  # else no value of the key would help
        ways.append(f"{'lower' if split == 'train' and not is_limit else 'raise'} {keys}")
    if not is_limit:
        ways.append("give validation and test files of their own")
    ways += ["give more rows of it", f"merge it with another in {key_of(task, 'labels')}"]
    return (
        f"Every split needs rows of every class: {', '.join(ways[:-1])}, or {ways[-1]} (a mapping "
        f"from class to labels). If it is no class, correct {key_of(task, 'label')}."
    )


# -- names that may be the same --------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?\d+\.\d*")


def lookalikes(key: str, what: str, rows: Mapping[str, int], way_out: str) -> list[str]:
    """Warnings for names that differ only in how they are written. `rows` has each name's number of
    rows, `what` says what they name, `key` which key of the config names their column, and
    `way_out` what to do."""
    alike: dict[str, list[str]] = {}
    for name in rows:
        alike.setdefault(_normalised(name), []).append(name)
    warnings = []
    for names in alike.values():
        if len(names) > 1:
            listing = enumerated(f"{brief(name)} ({counted(rows[name], 'row')})" for name in names)
            warnings.append(
                f"{key}: the {what} {listing} differ only in how they are written (case, spaces, "
                f"Unicode form), and count as {len(names)} {what}; {way_out}"
            )
    return warnings


def _normalised(name: str) -> str:
    """Equal for names that are the same but for case, white space, invisible characters, Unicode's
    compatible forms (NFKC, Unicode Standard Annex 15), and zeros behind a number's point."""
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    plain = " ".join(unicodedata.normalize("NFKC", visible).casefold().split())
    if _NUMBER.fullmatch(plain):
        return plain.rstrip("0").rstrip(".")
    return unicodedata.normalize("NFKC", plain)  # folding case can undo the form
