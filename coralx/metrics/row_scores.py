"""A model's scores of every row of a split, and the file that keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from coralx.errors import DamagedRunError
from coralx.system.files import make_parents, sha256_of, write_atomically

Probabilities = NDArray[np.float64]
"""Class probabilities, shape (rows, classes)."""

Labels = NDArray[np.int64]
"""Classes by index, shape (rows,)."""

LanguageScores = NDArray[np.float64]
"""One row an example, shape (rows, 2): the completion's negative log-likelihood in nats, and its
number of tokens."""


@dataclass(frozen=True)
class RowScores:
    """A model's scores of one task's rows of a split, and of its attacks and clean hold-out.

    The names of the fields are those of the file's tensors. Suspicion, 0 to 1, is the probability
    of any class but the first (`false_positive_cost.suspicion`). Files of earlier versions have no
    `attacked`, `sources`, `clean_flagged` and `positives`.
    """

    scores: Probabilities | LanguageScores
    """A classifier's probabilities; or a language model's losses, which have no labels."""

    labels: Labels | None = None
    """The true classes, shape (rows,)."""

    groups: Labels | None = None
    """Each row's group by number, shape (rows,)."""

    withstood: NDArray[np.float64] | None = None
    """1 for each attack that failed, shape (attacks,): the answer was judged to refuse, or the most
    probable class is any but the first."""

    attacked: NDArray[np.float64] | None = None
    """The suspicion of each attack, shape (attacks,), where a classifier is attacked."""

    sources: Labels | None = None
    """The number of the row that each attack is a rewriting of, shape (attacks,)."""

    clean: NDArray[np.float64] | None = None
    """The suspicion of each row of the clean hold-out, shape (rows of the hold-out,)."""

    clean_flagged: NDArray[np.float64] | None = None
    """1 for each of them whose most probable class is any but the first."""

    threshold: float | None = None
    """The suspicion from which rows are flagged, chosen on validation (`false_positive_cost`)."""

    temperature: float | None = None
    """Fitted on validation (`calibration`)."""

    positives: NDArray[np.float64] | None = None
    """The suspicion of validation's positive rows, on which the threshold was chosen."""

    @property
    def is_finite(self) -> bool:
        """Whether every score is a finite number."""
        tables = (self.scores, self.attacked, self.clean, self.positives)
        return all(table is None or bool(np.isfinite(table).all()) for table in tables)


ScoresByTask = Mapping[str, RowScores]
"""A model's scores of a split, by task; the task of a run without named ones is called ""."""

_INTEGERS = ("labels", "groups", "sources")
_NUMBERS = ("threshold", "temperature")
"""Fields that hold one number, which the file keeps as a tensor of length 1."""


def write_scores(path: Path, scores: ScoresByTask) -> str:
    """Keep the scores at `path`, in float64 as they were computed; returns the file's SHA-256.

    A tensor has the name of its field in RowScores; where tasks have names, that of its task and a
    slash stand before it. Raises SetupError where the storage refuses the file.
    """
    tensors = {}
    for task, rows in scores.items():
        prefix = f"{task}/" if task else ""
        for field in fields(rows):
            value = getattr(rows, field.name)
            if value is not None:
                tensors[prefix + field.name] = _tensor(field.name, value)
    content = save(tensors)
    make_parents(path, 1)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def _tensor(name: str, value: Any) -> NDArray[Any]:
    dtype = np.int64 if name in _INTEGERS else np.float64
    return np.ascontiguousarray(np.atleast_1d(value), dtype=dtype)


def scores_are_intact(path: Path, digest: str) -> bool:
    """Whether the file is there and has that SHA-256."""
    return path.is_file() and sha256_of(path) == digest


def read_scores(path: Path) -> dict[str, RowScores]:
    """The scores that `write_scores` kept. Raises DamagedRunError naming a file that is missing or
    damaged."""
    try:
        by_task: dict[str, dict[str, Any]] = {}
        for key, tensor in load(path.read_bytes()).items():
            task, _, name = key.rpartition("/")
            by_task.setdefault(task, {})[name] = float(tensor[0]) if name in _NUMBERS else tensor
        return {task: RowScores(**tensors) for task, tensors in sorted(by_task.items())}
    except (OSError, SafetensorError, TypeError, LookupError) as error:
        raise DamagedRunError(f"{path}: cannot be read as scores of rows: {error}") from None
