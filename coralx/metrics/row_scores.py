"""What a model said about every row of a split, and the file that keeps it."""

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
    """What a model said about one task's rows of a split, and about what else it is judged by.

    `scores`: a classifier's probabilities, with the true `labels`; or a language model's scores,
    which have no labels. `groups`: of each row, by index. `withstood`: of each attack, 1 where it
    failed, shape (attacks,): the answer was judged to refuse, or the most probable class is any but
    the first; then `attacked` is how suspicious each looked, 0 to 1. `sources`: the row that each
    attack was made of, by index. `clean`: how suspicious each row of the clean hold-out looked,
    shape (rows of the hold-out,), and `clean_flagged`: 1 where its most probable class is any but
    the first. `threshold` and `temperature` were settled on validation (see `false_positives` and
    `calibration`); `positives`: how suspicious its positive rows looked, which the threshold was
    settled on. Files of earlier versions have no `attacked`, `sources`, `clean_flagged` and
    `positives`.
    """

    scores: Probabilities | LanguageScores
    labels: Labels | None = None
    groups: Labels | None = None
    withstood: NDArray[np.float64] | None = None
    attacked: NDArray[np.float64] | None = None
    sources: Labels | None = None
    clean: NDArray[np.float64] | None = None
    clean_flagged: NDArray[np.float64] | None = None
    threshold: float | None = None
    temperature: float | None = None
    positives: NDArray[np.float64] | None = None

    @property
    def is_finite(self) -> bool:
        """Whether every score is a finite number."""
        tables = (self.scores, self.attacked, self.clean, self.positives)
        return all(table is None or bool(np.isfinite(table).all()) for table in tables)


Said = Mapping[str, RowScores]
"""What a model said about a split, by task; the task of a run without named ones is called ""."""

_WHOLE = ("labels", "groups", "sources")
_SINGLE = ("threshold", "temperature")


def write_scores(path: Path, said: Said) -> str:
    """Keep the scores at `path`, in float64 as they were computed; returns the file's SHA-256.

    Tensors are called as the fields of RowScores, behind the name of their task and a slash where
    tasks have names. Raises SetupError where the storage refuses the file.
    """
    tensors = {
        (f"{task}/" if task else "") + field.name: _tensor(field.name, value)
        for task, rows in said.items()
        for field in fields(rows)
        if (value := getattr(rows, field.name)) is not None
    }
    content = save(tensors)
    make_parents(path, 1)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def _tensor(name: str, value: Any) -> NDArray[Any]:
    kind = np.int64 if name in _WHOLE else np.float64
    return np.ascontiguousarray(np.atleast_1d(value), dtype=kind)


def is_whole(path: Path, digest: str) -> bool:
    """Whether the file is there and has that SHA-256."""
    return path.is_file() and sha256_of(path) == digest


def read_scores(path: Path) -> dict[str, RowScores]:
    """The scores that `write_scores` kept. Raises DamagedRunError naming a file that is none."""
    try:
        found: dict[str, dict[str, Any]] = {}
        for key, tensor in load(path.read_bytes()).items():
            task, _, name = key.rpartition("/")
            found.setdefault(task, {})[name] = float(tensor[0]) if name in _SINGLE else tensor
        return {task: RowScores(**tensors) for task, tensors in sorted(found.items())}
    except (OSError, SafetensorError, TypeError, LookupError) as error:
        raise DamagedRunError(f"{path}: no scores of a split ({error})") from None
