"""What a task is: how an example is encoded, trained on and scored."""

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
"""What a task reads off the model for each row, shape (rows, columns); columns by task."""


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples: ids and label of each row.

    `targets` are, for sft, the places of each row's completion tokens. `cut` counts rows that lost
    tokens to the context's length, `left_out` rows that were too long to keep, and `empty` rows
    left out as they had nothing to learn but an end; then `kept` are the places of the others
    among all. `tasks` tells, where rows of several are mixed, which task each row is of.
    """

    ids: tuple[tuple[int, ...], ...]
    labels: NDArray[np.int64]
    targets: tuple[tuple[int, ...], ...] = ()
    cut: int = 0
    left_out: int = 0
    empty: int = 0
    kept: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]

    @property
    def strata(self) -> NDArray[np.int64]:
        """A number for each row's task and class."""
        tasks = np.asarray(self.tasks or np.zeros_like(self.labels), dtype=np.int64)
        return tasks * (int(self.labels.max(initial=0)) + 1) + self.labels

    def first(self, limit: int | None) -> Encoded:
        """The first `limit` rows; all of them for None."""
        return Encoded(self.ids[:limit], self.labels[:limit], self.targets[:limit])

    def where(self, wanted: NDArray[np.bool_]) -> Encoded:
        """The rows that are `wanted`, shape (rows,)."""
        places = np.flatnonzero(wanted).tolist()
        targets = tuple(self.targets[place] for place in places) if self.targets else ()
        return Encoded(tuple(self.ids[place] for place in places), self.labels[wanted], targets)


class Trainable(Protocol):
    """What a model can be trained on."""

    eval_tokens: int
    """Tokens scored together, padding included; the figures do not depend on it."""

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean loss over the rows, a float32 scalar with gradient."""
        ...

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        """How many things the loss of these rows is the mean of: rows, or tokens."""
        ...


class Task(Trainable, Protocol):
    """One way to train and score a model."""

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Token ids, at most `model.max_length` a row.

        Raises ConfigError where the tokenizer cannot do what the task needs.
        """
        ...

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        """What the figures are computed from, shape (rows, columns)."""
        ...

    def by_row(self, scores: Scores, data: Encoded) -> RowScores:
        """The scores in the form in which figures are read off them, and in which they are kept."""
        ...


class Classification:
    """What tasks have in common whose scores are class probabilities, shape (rows, classes)."""

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        return len(rows)

    def by_row(self, scores: Scores, data: Encoded) -> RowScores:
        return RowScores(scores, data.labels)


def padded(
    sequences: Sequence[Sequence[int]], padding: int | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """Sequences padded on the right: input_ids and attention_mask, shape (rows, longest)."""
    longest = max(len(ids) for ids in sequences)
    ids = torch.full((len(sequences), longest), padding or 0, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for place, sequence in enumerate(sequences):
        ids[place, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[place, : len(sequence)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
