"""What a model is asked to do with an example, and how its answers are scored."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.data.examples import Example
from coralx.objectives.scores import RowScores

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


class SequenceClassification(Classification):
    """One logit a class from the whole text; cross-entropy. Where one head serves several tasks,
    `logits` are those of this one. `padding` is the token that the base's config names for it.

    Every row has the logits that it has alone, by transformers and the base's own config.
    """

    eval_tokens = 1 << 13

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        device: torch.device,
        logits: slice = slice(None),
        padding: int | None = None,
    ) -> None:
        self._logits = logits
        self._padding = padding
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._device = device

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Texts with special tokens; longer ones lose their end."""
        texts = [example.text for example in examples]
        whole = self._tokenizer(texts)["input_ids"]
        short = self._tokenizer(texts, truncation=True, max_length=self._max_length)["input_ids"]
        labels = np.asarray([example.label for example in examples], dtype=np.int64)
        cut = sum(len(ids) > self._max_length for ids in whole)
        return Encoded(tuple(tuple(ids) for ids in short), labels, cut=cut)

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        logits = self.logits(model, data, rows)
        labels = torch.as_tensor(data.labels[list(rows)], device=logits.device)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        logits = self.logits(model, data, rows).cpu().double()
        probabilities: Scores = torch.softmax(logits, dim=-1).numpy()
        return probabilities

    def logits(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """The rows' logits, shape (rows, classes), from one padded batch."""
        return self.logits_of(model, self.batch(model, data, rows))

    def logits_of(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The logits of a batch, shape (rows, classes)."""
        found: torch.Tensor = model(**batch).logits[:, self._logits]
        return found

    def logits_alone(self, model: Any, text: str) -> torch.Tensor:
        """A text's logits, shape (classes,), as transformers has them without a batch, from all
        that the tokenizer gives."""
        limits = {"truncation": True, "max_length": self._max_length, "return_tensors": "pt"}
        inputs = self._tokenizer(text, **limits).to(self._device)
        found: torch.Tensor = model(**inputs).logits[0, self._logits]
        return found

    def batch(self, model: Any, data: Encoded, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The rows' tokens, padded on the right."""
        sequences = [data.ids[row] for row in rows]
        padding = self._padding
        if padding is None:
            described = model.config.get_text_config()
            vocabulary = getattr(described, "vocab_size", sys.maxsize)
            padding = self._stand_in({ids[-1] for ids in sequences if ids}, vocabulary)
            described.pad_token_id = model.config.pad_token_id = padding
        return padded(sequences, padding, self._device)

    def _stand_in(self, ends: Collection[int], vocabulary: int) -> int:
        """A token to pad with for a base that names none, which alone reads a text's class off its
        last token, whatever that is: in a batch, off the last one that is not padding. So none at
        which a text `ends`, as all do at the end token where the tokenizer appends it."""
        usual = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        known = [id_ for id_ in usual if id_ is not None and id_ < vocabulary]
        tokens: list[int] = [*known, *range(len(ends) + 1)]
        return next(token for token in tokens if token not in ends)


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
