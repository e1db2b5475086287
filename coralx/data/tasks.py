"""What a model is asked to do with an example, and how its answers are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.data.sources import Example


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples: ids and label of each row."""

    ids: tuple[tuple[int, ...], ...]
    labels: NDArray[np.int64]

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]


class SequenceClassification:
    """One logit a class from the whole text; cross-entropy."""

    def __init__(self, tokenizer: Any, max_length: int, device: torch.device) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._device = device

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Token ids, at most `max_length` with special tokens; longer texts lose their end."""
        texts = [example.text for example in examples]
        encoded = self._tokenizer(texts, truncation=True, max_length=self._max_length)
        labels = np.asarray([example.label for example in examples], dtype=np.int64)
        return Encoded(tuple(tuple(ids) for ids in encoded["input_ids"]), labels)

    def collate(self, data: Encoded, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Rows padded to the longest: input_ids and attention_mask, shape (rows, length)."""
        longest = max(len(data.ids[row]) for row in rows)
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), longest), padding, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            length = len(data.ids[row])
            ids[place, :length] = torch.tensor(data.ids[row], dtype=torch.long)
            mask[place, :length] = 1
        return {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean cross-entropy over the rows, in float32."""
        logits = model(**self.collate(data, rows)).logits
        labels = torch.as_tensor(data.labels[list(rows)], device=logits.device)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    def probabilities(self, model: Any, data: Encoded, rows: Sequence[int]) -> NDArray[np.float64]:
        """Class probabilities, shape (rows, classes)."""
        logits = model(**self.collate(data, rows)).logits
        scores: NDArray[np.float64] = torch.softmax(logits.cpu().double(), dim=-1).numpy()
        return scores
