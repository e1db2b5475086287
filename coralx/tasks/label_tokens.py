"""Classification by a causal language model: which label word follows the prompt?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from coralx.config.data import Source, key_of
from coralx.data.examples import Example, Message
from coralx.data.tables import problem
from coralx.tasks.causal_lm import CausalText, Ids, longest_fitting
from coralx.tasks.protocol import Classification, Encoded, Scores
from coralx.text import counted

MOST_PIECES = 4
"""Tokens of a label word beyond which its mean log-probability says little about the word."""


class LabelTokens(Classification):
    """Which label word follows the prompt. The score of a class is the mean log-probability of its
    word's tokens; probabilities are the softmax of the scores. Only label tokens are trained on."""

    eval_tokens = 1 << 12

    def __init__(
        self,
        tokenizer: Any,
        source: Source,
        max_length: int,
        labels: Sequence[str],
        device: torch.device,
        name: str = "",
    ) -> None:
        self._text = CausalText(tokenizer, device)
        self._name = name
        self._chat = source.chat
        self._template = source.prompt if self._chat else source.prompt.rstrip(" ")
        self._max_length = max_length
        if self._chat:
            gap = self._text.gap_before_answers()
        else:
            gap = "" if self._template[-1:].isspace() else " "
        self._labels = tuple(labels)
        self.words = tuple(self._text.following(gap + label) for label in labels)
        self._require_distinct_words(labels)
        self._prefixes = _longest_prefixes(self.words)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Prompts that leave room for the longest label. A longer one loses the end of its text."""
        room = self._max_length - max(map(len, self.words))
        rows, cut = [], 0
        for example in examples:
            text = self._text.plain(example.text)
            ids = self._prompt(text)
            if len(ids) > room:
                ids, cut = self._shortened(text, room), cut + 1
            rows.append(ids)
        labels = np.asarray([example.label for example in examples], dtype=np.int64)
        return Encoded(tuple(rows), labels, cut=cut)

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean negative log-likelihood of the label's tokens, each row counting as much."""
        words = [self.words[data.labels[row]] for row in rows]
        sequences = [data.ids[row] + word for row, word in zip(rows, words, strict=True)]
        places = [range(len(data.ids[row]), len(s)) for row, s in zip(rows, sequences, strict=True)]
        logs = self._text.log_probabilities(model, sequences, places)
        shares = [1.0 / (len(word) * len(words)) for word in words for _ in word]
        return -(logs * torch.tensor(shares, device=logs.device)).sum()

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        sums = np.zeros((len(rows), len(self.words)))
        for prefix, wanted in self._prefixes.items():
            prompts = [data.ids[row] for row in rows]
            places = [range(len(ids), len(ids) + len(prefix) + 1) for ids in prompts]
            sequences = [ids + prefix for ids in prompts]
            logits = self._text.logits(model, sequences, places, exact=True)
            logs = torch.log_softmax(logits, dim=-1).view(len(rows), len(prefix) + 1, -1)
            for word, place in wanted:
                token = self.words[word][place]
                sums[:, word] += logs[:, place, token].cpu().double().numpy()
        means = torch.from_numpy(sums / [len(word) for word in self.words])
        probabilities: Scores = torch.softmax(means, dim=-1).numpy()
        return probabilities

    def oddities(self) -> list[str]:
        """Warnings about label words that the tokenizer splits so that their scores are hard to
        compare: in many pieces, or with one the beginning of another."""
        found = []
        words = dict(zip(self._labels, self.words, strict=True))
        for label, word in words.items():
            if len(word) > MOST_PIECES:
                found.append(f"the label {label!r} is {len(word)} tokens long")
            found += [
                f"the label {label!r} is the beginning of {other!r} to the tokenizer"
                for other, longer in words.items()
                if other != label and longer[: len(word)] == word
            ]
        where, way_out = key_of(self._name, "labels"), "name the classes by short, different words"
        return [f"{where}: {what}; {way_out}" for what in found]

    def _prompt(self, text: str) -> Ids:
        filled = self._template.replace("{text}", text)
        if self._chat:
            return self._text.ids(self._text.chat([Message("user", filled)], answer_follows=True))
        # The first label token needs something before it, even if the prompt has no token.
        return self._text.beginning + self._text.ids(filled) or self._text.separator

    def _shortened(self, text: str, room: int) -> Ids:
        fitting = longest_fitting(self._prompt, text, room)
        if fitting is None:
            raise problem(
                "model.max_length",
                f"{self._max_length}, but the prompt alone takes "
                f"{counted(len(self._prompt('')), 'token')} and the longest label "
                f"{self._max_length - room}",
                f"Give a longer max_length or a shorter {key_of(self._name, 'prompt')}.",
            )
        return fitting

    def _require_distinct_words(self, labels: Sequence[str]) -> None:
        """Raise ConfigError for words that are no tokens, unknown ones, or those of another."""
        seen: dict[Ids, str] = {}
        for label, word in zip(labels, self.words, strict=True):
            is_unknown = self._text.unknown is not None and self._text.unknown in word
            if not word or word in seen or is_unknown:
                what = "no tokens" if not word else "not known: it has no tokens for all of it"
                if word in seen:
                    what = f"the same tokens as {seen[word]!r}"
                raise problem(
                    key_of(self._name, "labels"),
                    f"to the base's tokenizer, the label {label!r} is {what}",
                    "Name the classes by words that differ: labels: {positive: [1], ...}",
                )
            seen[word] = label


def _longest_prefixes(words: Sequence[Ids]) -> dict[Ids, list[tuple[int, int]]]:
    """What to put behind a prompt so that every token of every word is predicted once.

    Keys are words without their last token, none the beginning of another; values the (word,
    token place) pairs that each of them predicts. Words of one token need a single empty one.
    """
    prefixes = {word[:-1] for word in words}
    longest = [
        prefix
        for prefix in sorted(prefixes)
        if not any(other != prefix and other[: len(prefix)] == prefix for other in prefixes)
    ]
    found: dict[Ids, list[tuple[int, int]]] = {prefix: [] for prefix in longest}
    for number, word in enumerate(words):
        for place in range(len(word)):
            home = next(prefix for prefix in longest if prefix[:place] == word[:place])
            found[home].append((number, place))
    return found
