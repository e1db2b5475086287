"""The contract of a task: how examples are encoded, trained on and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.data.examples import Example
from coralx.metrics.row_scores import RowScores

Scores = NDArray[np.float64]
"""What a task computes from the model for each row, shape (rows, columns): a class's probability a
column, or for sft the columns of `LanguageScores`."""


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples."""

    ids: tuple[tuple[int, ...], ...]
    """The token ids of each row."""

    labels: NDArray[np.int64]
    """The number of each row's class, shape (rows,); 0 for sft."""

    targets: tuple[tuple[int, ...], ...] = ()
    """For sft, the places of each row's completion tokens."""

    cut: int = 0
    """How many rows lost tokens to the context's length."""

    left_out: int = 0
    """How many rows were too long to keep."""

    empty: int = 0
    """How many rows were left out because they have nothing to learn but an end."""

    kept: tuple[int, ...] = ()
    """Where rows may be left out, the numbers of those that were not, among all."""

    tasks: tuple[int, ...] = ()
    """Where rows of several tasks are mixed, the number of each row's task."""

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]

    @property
    def strata(self) -> NDArray[np.int64]:
        """A number for each row's task and class, shape (rows,)."""
        tasks = np.asarray(self.tasks or np.zeros_like(self.labels), dtype=np.int64)
        return tasks * (int(self.labels.max(initial=0)) + 1) + self.labels

    def first(self, limit: int | None) -> Encoded:
        """The first `limit` rows; all of them for None."""
        return Encoded(self.ids[:limit], self.labels[:limit], self.targets[:limit])

    def where(self, mask: NDArray[np.bool_]) -> Encoded:
        """The rows of which the mask, shape (rows,), is true."""
        rows = np.flatnonzero(mask).tolist()
        targets = tuple(self.targets[row] for row in rows) if self.targets else ()
        return Encoded(tuple(self.ids[row] for row in rows), self.labels[mask], targets)


class Trainable(Protocol):
    """What a model can be trained on: a task, or several mixed."""

    eval_tokens: int
    """Tokens scored in one batch, padding included; the figures do not depend on it."""

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean loss over the rows, a float32 scalar with gradient."""
        ...

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        """How many items the loss of these rows is the mean of: rows, or for sft tokens."""
        ...


class Task(Trainable, Protocol):
    """One way to train and score a model: what `model.task` names."""

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Token ids, at most `model.max_length` a row.

        Raises ConfigError where the tokenizer cannot do what the task needs.
        """
        ...

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        """What figures are computed from, shape (rows, columns)."""
        ...

    def by_row(self, scores: Scores, data: Encoded) -> RowScores:
        """The scores in the form from which figures are computed, and in which they are kept."""
        ...


class Classification:
    """Base of the tasks whose scores are class probabilities, shape (rows, classes)."""

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        return len(rows)

    def by_row(self, scores: Scores, data: Encoded) -> RowScores:
        return RowScores(scores, data.labels)


def padded(
    sequences: Sequence[Sequence[int]],
    padding: int | None,
    device: torch.device,
    *,
    masked: bool = True,
) -> dict[str, torch.Tensor]:
    """Sequences padded on the right: input_ids and, if `masked`, attention_mask, both of shape
    (rows, longest)."""
    longest = max(len(ids) for ids in sequences)
    ids = torch.full((len(sequences), longest), padding or 0, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for place, sequence in enumerate(sequences):
        ids[place, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[place, : len(sequence)] = 1
    batch = {"input_ids": ids.to(device)}
    return {**batch, "attention_mask": mask.to(device)} if masked else batch
