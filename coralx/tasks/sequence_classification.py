"""`sequence-classification`: a head on the base gives one logit a class for the whole text."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from coralx.data.examples import Example
from coralx.tasks.protocol import Classification, Encoded, Scores, padded


class SequenceClassification(Classification):
    """One logit a class for the whole text, trained by cross-entropy. Where one head serves several
    tasks, `logits` are those of this one. `padding` is the padding token of the base's config.

    In a batch every row has the logits that it has alone, by transformers and the base's own
    config.
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
        uncut = self._tokenizer(texts)["input_ids"]
        limits = {"truncation": True, "max_length": self._max_length}
        truncated = self._tokenizer(texts, **limits)["input_ids"]  # special tokens at the end stay
        labels = np.asarray([example.label for example in examples], dtype=np.int64)
        cut = sum(len(ids) > self._max_length for ids in uncut)
        return Encoded(tuple(map(tuple, truncated)), labels, cut=cut)

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean cross-entropy over the rows, a float32 scalar with gradient."""
        labels = torch.as_tensor(data.labels[list(rows)], device=self._device)
        logits = self.logits(model, data, rows)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        """Probabilities of the classes, shape (rows, classes)."""
        logits = self.logits(model, data, rows).cpu().double()
        probabilities: Scores = torch.softmax(logits, dim=-1).numpy()
        return probabilities

    def logits(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """The rows' logits, shape (rows, classes), from one padded batch."""
        return self.logits_of(model, self.batch(model, data, rows))

    def logits_of(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The logits of a batch, shape (rows, classes)."""
        logits: torch.Tensor = model(**batch).logits[:, self._logits]
        return logits

    def logits_alone(self, model: Any, text: str) -> torch.Tensor:
        """A text's logits, shape (classes,), as transformers computes them without a batch, from
        all that the tokenizer returns."""
        limits = {"truncation": True, "max_length": self._max_length, "return_tensors": "pt"}
        inputs = self._tokenizer(text, **limits).to(self._device)
        logits: torch.Tensor = model(**inputs).logits[0, self._logits]
        return logits

    def batch(self, model: Any, data: Encoded, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The rows' tokens, padded on the right."""
        sequences = [data.ids[row] for row in rows]
        padding = self._padding
        if padding is None:
            text_config = model.config.get_text_config()
            vocabulary = getattr(text_config, "vocab_size", sys.maxsize)
            padding = self._stand_in({ids[-1] for ids in sequences if ids}, vocabulary)
            text_config.pad_token_id = model.config.pad_token_id = padding
        return padded(sequences, padding, self._device)

    def _stand_in(self, ends: Collection[int], vocabulary: int) -> int:
        """A token to pad with, for a base whose config names none.

        Such a base takes a text's class from its last token; in a batch, from the last one that is
        not padding. So padding must not be a token with which a text `ends`; with the usual one,
        the end token, all do where the tokenizer appends it.
        """
        usual = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        known = [id_ for id_ in usual if id_ is not None and id_ < vocabulary]
        tokens: list[int] = [*known, *range(len(ends) + 1)]
        return next(token for token in tokens if token not in ends)
