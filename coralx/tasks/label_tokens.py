"""`label-tokens`: classification by which label word a causal language model expects next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from coralx.config.data import TaskData, key_of
from coralx.data.examples import Example, Message
from coralx.data.tables import problem
from coralx.tasks.causal_lm import CausalText, Ids, longest_fitting
from coralx.tasks.protocol import Classification, Encoded, Scores
from coralx.text import counted

MOST_TOKENS = 4
"""Tokens of a label word beyond which its mean log-probability says little about the word."""


class LabelTokens(Classification):
    """The score of a class is the mean log-probability of its label word's tokens, given the
    prompt; probabilities are the softmax of the scores. Only label tokens are trained on."""

    eval_tokens = 1 << 12

    def __init__(
        self,
        tokenizer: Any,
        source: TaskData,
        max_length: int,
        labels: Sequence[str],
        device: torch.device,
        name: str = "",
    ) -> None:
        self._text = CausalText(tokenizer, device)
        self._device = device
        self._name = name
        self._chat = source.chat
        # Tokens begin with the space before a word, so it goes to the label, not to the prompt.
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
        """Prompts that leave room for the longest label. A longer one loses the end of its text.
        Raises ConfigError where there is no room for any."""
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
        # Mean over a word's tokens first, then over rows: rows with long words count no more.
        shares = [1.0 / (len(word) * len(words)) for word in words for _ in word]
        weights = torch.tensor(shares, device=self._device)
        logs = self._text.log_probabilities(model, sequences, places)
        return -(logs * weights).sum()

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        """Probabilities of the classes, shape (rows, classes)."""
        sums = np.zeros((len(rows), len(self.words)))
        for prefix, predicted in self._prefixes.items():
            prompts = [data.ids[row] for row in rows]
            places = [range(len(ids), len(ids) + len(prefix) + 1) for ids in prompts]
            sequences = [ids + prefix for ids in prompts]
            logits = self._text.logits(model, sequences, places, exact=True)
            logs = torch.log_softmax(logits, dim=-1).view(len(rows), len(prefix) + 1, -1)
            for word, place in predicted:
                token = self.words[word][place]
                sums[:, word] += logs[:, place, token].cpu().double().numpy()
        means = torch.from_numpy(sums / [len(word) for word in self.words])
        probabilities: Scores = torch.softmax(means, dim=-1).numpy()
        return probabilities

    def oddities(self) -> list[str]:
        """Warnings about label words that the tokenizer splits so that their scores are hard to
        compare: into many tokens, or so that one begins another."""
        where, way_out = key_of(self._name, "labels"), "name the classes by short, different words"
        warnings = []
        words = dict(zip(self._labels, self.words, strict=True))
        for label, word in words.items():
            if len(word) > MOST_TOKENS:
                warnings.append(
                    f"{where}: the label {label!r} is {len(word)} tokens long; {way_out}"
                )
            for other, longer in words.items():
                if other != label and longer[: len(word)] == word:
                    warnings.append(
                        f"{where}: the label {label!r} is the beginning of {other!r} to the "
                        f"tokenizer; {way_out}"
                    )
        return warnings

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
                f"Raise max_length or shorten {key_of(self._name, 'prompt')}.",
            )
        return fitting

    def _require_distinct_words(self, labels: Sequence[str]) -> None:
        """Raise ConfigError for a word without tokens, with unknown ones, or with those of another
        word."""
        seen: dict[Ids, str] = {}
        for label, word in zip(labels, self.words, strict=True):
            wrong = ""
            if not word:
                wrong = "no tokens"
            elif word in seen:
                wrong = f"the same tokens as {seen[word]!r}"
            elif self._text.unknown is not None and self._text.unknown in word:
                wrong = "not known: it has no tokens for all of it"
            if wrong:
                raise problem(
                    key_of(self._name, "labels"),
                    f"to the base's tokenizer, the label {label!r} is {wrong}",
                    "Name the classes by words that differ: labels: {positive: [1], ...}",
                )
            seen[word] = label


def _longest_prefixes(words: Sequence[Ids]) -> dict[Ids, list[tuple[int, int]]]:
    """What to append to a prompt so that every token of every word is predicted once.

    Keys are words without their last token, none the beginning of another; values the (number of
    the word, place of its token) pairs that each of them predicts. Where all words are one token
    long, the one key is empty: a single pass scores them all.
    """
    prefixes = {word[:-1] for word in words}
    longest = [prefix for prefix in sorted(prefixes) if not _begins_another(prefix, prefixes)]
    predicted: dict[Ids, list[tuple[int, int]]] = {prefix: [] for prefix in longest}
    for number, word in enumerate(words):
        for place in range(len(word)):
            first = next(prefix for prefix in longest if prefix[:place] == word[:place])
            predicted[first].append((number, place))
    return predicted


def _begins_another(prefix: Ids, prefixes: Iterable[Ids]) -> bool:
    return any(other != prefix and other[: len(prefix)] == prefix for other in prefixes)
