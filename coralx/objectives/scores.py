"""What a model said about every row of a split, and the file that keeps it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from coralx.errors import DamagedRunError
from coralx.files import sha256_of, storing, write_atomically

Probabilities = NDArray[np.float64]
"""Class probabilities, shape (rows, classes)."""

Labels = NDArray[np.int64]
"""Classes by index, shape (rows,)."""

LanguageScores = NDArray[np.float64]
"""One row an example, shape (rows, 2): the completion's negative log-likelihood in nats, and its
number of tokens."""


@dataclass(frozen=True)
class RowScores:
    """A classifier's probabilities with the true labels, or a language model's scores, which have
    no labels."""

    scores: Probabilities | LanguageScores
    labels: Labels | None


def write_scores(path: Path, rows: RowScores) -> str:
    """Keep the scores at `path`, in float64 as they were computed; returns the file's SHA-256.
    Raises SetupError where the storage refuses it."""
    tensors = {"scores": np.ascontiguousarray(rows.scores, dtype=np.float64)}
    if rows.labels is not None:
        tensors["labels"] = np.ascontiguousarray(rows.labels, dtype=np.int64)
    content = save(tensors)
    with storing(path):
        path.parent.mkdir(exist_ok=True)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def is_whole(path: Path, digest: str) -> bool:
    """Whether the file is there and has that SHA-256."""
    return path.is_file() and sha256_of(path) == digest


def read_scores(path: Path) -> RowScores:
    """The scores that `write_scores` kept. Raises DamagedRunError naming a file that is none."""
    try:
        tensors = load(path.read_bytes())
        return RowScores(tensors["scores"], tensors.get("labels"))
    except (OSError, SafetensorError, KeyError) as error:
        raise DamagedRunError(f"{path}: no scores of a split ({error})") from None
