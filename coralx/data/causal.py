"""What causal language models are asked: for a label's words, or for a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError

from coralx.config.schema import Config
from coralx.data.examples import Example, Message
from coralx.data.tables import problem
from coralx.data.tasks import Classification, Encoded, Figures, Scores, padded
from coralx.objectives.bootstrap import language_intervals
from coralx.objectives.language import figures
from coralx.records import Interval

Ids = tuple[int, ...]


class CausalText:
    """Text to token ids the way a causal model saw it in training, and next-token logits."""

    def __init__(self, tokenizer: Any, device: torch.device) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self.beginning = self._beginning()
        separators = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, 0)
        self.separator: Ids = (next(id_ for id_ in separators if id_ is not None),)
        # SentencePiece vocabularies put a space before whatever they tokenise first.
        self._anchor = "\n" if "".join(tokenizer.tokenize("a")).startswith("▁") else ""

    def ids(self, text: str) -> Ids:
        """Tokens of a text that opens a sequence, without special tokens."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def following(self, text: str) -> Ids:
        """Tokens of a text that goes on where another ended."""
        anchor = self.ids(self._anchor) if self._anchor else ()
        both = self.ids(self._anchor + text)
        return both[len(anchor) :] if both[: len(anchor)] == anchor else self.ids(text)

    def chat(self, messages: Sequence[Message], *, answer_follows: bool) -> str:
        """Turns in the tokenizer's chat template. Raises ConfigError where it has none."""
        if not self._tokenizer.chat_template:
            raise problem(
                "data.chat",
                "the base's tokenizer has no chat template",
                "Set data.chat: false and write the prompt out, or take an instruct model.",
            )
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answer_follows
            )
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages) or "nobody"
            raise problem(
                "data", f"the base's chat template refuses a chat of {roles}: {error}"
            ) from None
        return text

    def gap_before_answers(self) -> str:
        """The white space that the chat template puts between a generation prompt and an answer."""
        asked, answer = [Message("user", "1")], "2"
        before = self.chat(asked, answer_follows=True)
        whole = self.chat([*asked, Message("assistant", answer)], answer_follows=False)
        follows = whole.removeprefix(before)
        gap = follows[: len(follows) - len(follows.lstrip())]
        return gap if follows.startswith(gap + answer) else ""

    def _beginning(self) -> Ids:
        """Special tokens that the tokenizer puts before a text."""
        whole, plain = tuple(self._tokenizer("a")["input_ids"]), self.ids("a")
        starts = (n for n in range(len(whole)) if whole[n : n + len(plain)] == plain)
        return whole[: next(starts, 0)]

    def logits(
        self, model: Any, sequences: Sequence[Ids], places: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Float32 logits of the tokens at `places` of each sequence, given what stands before
        them; shape (places in all, vocabulary), row by row. A place may lie just past the end.

        Rows are padded on the right, where a causal model never looks, and only the positions
        that are needed go through the language-model head.
        """
        batch = padded(sequences, self._tokenizer.pad_token_id, self._device)
        first = min(min(row) for row in places) - 1
        keep = batch["input_ids"].shape[1] - first
        out = model(**batch, use_cache=False, logits_to_keep=keep).logits
        rows = [row for row, wanted in enumerate(places) for _ in wanted]
        columns = [place - 1 - first for wanted in places for place in wanted]
        selected: torch.Tensor = out[rows, columns].float()
        return selected

    def log_probabilities(
        self, model: Any, sequences: Sequence[Ids], places: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Log-probability of each sequence's own tokens at `places`, row by row."""
        logits = self.logits(model, sequences, places)
        own = [
            ids[place] for ids, wanted in zip(sequences, places, strict=True) for place in wanted
        ]
        return -torch.nn.functional.cross_entropy(
            logits, torch.tensor(own, device=logits.device), reduction="none"
        )


class LabelTokens(Classification):
    """Which label word follows the prompt. The score of a class is the mean log-probability of its
    word's tokens; probabilities are the softmax of the scores. Only label tokens are trained on."""

    eval_tokens = 1 << 12

    def __init__(
        self, tokenizer: Any, config: Config, labels: Sequence[str], device: torch.device
    ) -> None:
        self._text = CausalText(tokenizer, device)
        self._chat = config.data.chat
        self._template = config.data.prompt if self._chat else config.data.prompt.rstrip(" ")
        self._max_length = config.model.max_length
        if self._chat:
            gap = self._text.gap_before_answers()
        else:
            gap = "" if self._template[-1:].isspace() else " "
        self._words = tuple(self._text.following(gap + label) for label in labels)
        self._require_distinct_words(labels)
        self._prefixes = _longest_prefixes(self._words)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Prompts that leave room for the longest label. A longer one loses the end of its text."""
        room = self._max_length - max(map(len, self._words))
        rows, cut = [], 0
        for example in examples:
            ids = self._prompt(example.text)
            if len(ids) > room:
                ids, cut = self._shortened(example.text, room), cut + 1
            rows.append(ids)
        labels = np.asarray([example.label for example in examples], dtype=np.int64)
        return Encoded(tuple(rows), labels, cut=cut)

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean negative log-likelihood of the label's tokens, each row counting as much."""
        words = [self._words[data.labels[row]] for row in rows]
        sequences = [data.ids[row] + word for row, word in zip(rows, words, strict=True)]
        places = [range(len(data.ids[row]), len(s)) for row, s in zip(rows, sequences, strict=True)]
        logs = self._text.log_probabilities(model, sequences, places)
        shares = [1.0 / (len(word) * len(words)) for word in words for _ in word]
        return -(logs * torch.tensor(shares, device=logs.device)).sum()

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        sums = np.zeros((len(rows), len(self._words)))
        for prefix, wanted in self._prefixes.items():
            prompts = [data.ids[row] for row in rows]
            places = [range(len(ids), len(ids) + len(prefix) + 1) for ids in prompts]
            logits = self._text.logits(model, [ids + prefix for ids in prompts], places)
            logs = torch.log_softmax(logits, dim=-1).view(len(rows), len(prefix) + 1, -1)
            for word, place in wanted:
                token = self._words[word][place]
                sums[:, word] += logs[:, place, token].cpu().double().numpy()
        means = torch.from_numpy(sums / [len(word) for word in self._words])
        probabilities: Scores = torch.softmax(means, dim=-1).numpy()
        return probabilities

    def _prompt(self, text: str) -> Ids:
        filled = self._template.replace("{text}", text)
        if self._chat:
            return self._text.ids(self._text.chat([Message("user", filled)], answer_follows=True))
        # The first label token needs something before it, even if the prompt has no token.
        return self._text.beginning + self._text.ids(filled) or self._text.separator

    def _shortened(self, text: str, room: int) -> Ids:
        """The prompt with the longest beginning of `text` that fits, to within a word: bisection
        overlooks that a word's beginning may take more tokens than the word."""
        low, high = 0, len(text) - 1
        best = self._prompt("")
        if len(best) > room:
            raise problem(
                "model.max_length",
                f"{self._max_length}, but the prompt alone takes {len(best)} tokens and the "
                f"longest label {self._max_length - room}",
                "Give a longer max_length or a shorter data.prompt.",
            )
        while low <= high:
            middle = (low + high) // 2
            tried = self._prompt(text[:middle].rstrip())
            if len(tried) <= room:
                best, low = tried, middle + 1
            else:
                high = middle - 1
        return best

    def _require_distinct_words(self, labels: Sequence[str]) -> None:
        seen: dict[Ids, str] = {}
        for label, word in zip(labels, self._words, strict=True):
            if not word or word in seen:
                what = f"the same tokens as {seen[word]!r}" if word else "no tokens"
                raise problem(
                    "data.labels",
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


class InstructionTuning:
    """Supervised fine-tuning: the next token of completions, and of nothing else.

    Scores are, for each row, the negative log-likelihood of its completion in nats and its number
    of tokens.
    """

    eval_tokens = 1 << 11

    def __init__(
        self, tokenizer: Any, config: Config, device: torch.device, *, fused_loss: bool
    ) -> None:
        self._text = CausalText(tokenizer, device)
        self._tokenizer = tokenizer
        self._max_length = config.model.max_length
        self._device = device
        self._fused_loss = fused_loss
        end = tokenizer.eos_token_id
        self._end: Ids = () if end is None else (end,)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Prompt and completion, cut at the end; rows whose prompt leaves no room for a token of
        the completion are left out. Raises ConfigError if none is left."""
        rows, targets, cut = [], [], 0
        for example in examples:
            opening: Ids = () if example.is_chat else self._text.beginning
            ids, places = opening, list[int]()
            for text, is_answer in self._pieces(example):
                is_first = len(ids) == len(opening)
                piece = self._text.ids(text) if is_first else self._text.following(text)
                if is_answer:
                    places += range(len(ids), len(ids) + len(piece))
                ids += piece
            if not example.is_chat and ids[-1:] != self._end:
                places += range(len(ids), len(ids) + len(self._end))
                ids += self._end
            kept = tuple(place for place in places if 0 < place < self._max_length)
            if kept:
                cut += len(ids) > self._max_length
                rows.append(ids[: self._max_length])
                targets.append(kept)
        if not rows:
            raise problem(
                "model.max_length",
                f"{self._max_length}: no prompt leaves room for its completion",
                "Give a longer max_length.",
            )
        labels = np.zeros(len(rows), dtype=np.int64)
        return Encoded(tuple(rows), labels, tuple(targets), cut, len(examples) - len(rows))

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean negative log-likelihood over the completions' tokens."""
        sequences = [data.ids[row] for row in rows]
        places = [data.targets[row] for row in rows]
        if self._fused_loss:
            return self._loss_inside(model, sequences, places)
        return -self._text.log_probabilities(model, sequences, places).mean()

    def _loss_inside(
        self, model: Any, sequences: Sequence[Ids], places: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """The same loss by the model itself, which may know how not to hold all logits at once."""
        batch = padded(sequences, self._tokenizer.pad_token_id, self._device)
        labels = torch.full_like(batch["input_ids"], -100)
        for row, wanted in enumerate(places):
            chosen = torch.tensor(wanted, device=self._device)
            labels[row, chosen] = batch["input_ids"][row, chosen]
        loss: torch.Tensor = model(**batch, labels=labels, use_cache=False).loss
        return loss

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        places = [data.targets[row] for row in rows]
        logs = self._text.log_probabilities(model, [data.ids[row] for row in rows], places)
        counts = [len(wanted) for wanted in places]
        starts = np.cumsum([0, *counts[:-1]])
        sums = np.add.reduceat(-logs.cpu().double().numpy(), starts)
        return np.column_stack([sums, counts]).astype(np.float64)

    def figures(self, scores: Scores, data: Encoded) -> Figures:
        return figures(scores)

    def intervals(self, scores: Scores, data: Encoded, seed: int) -> dict[str, Interval]:
        return language_intervals(scores, seed)

    def _pieces(self, example: Example) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is an answer to be learnt."""
        if not example.is_chat:
            prompt, completion = example.messages
            return [(prompt.content, False), (completion.content, True)]
        return self._turns(example.messages)

    def _turns(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """A chat cut at its answers. A template that rewrites earlier turns when later ones come
        (as reasoning models' do) leaves the last answer alone to be learnt."""
        whole = self._text.chat(messages, answer_follows=False)
        spans = []
        for place, message in enumerate(messages):
            if message.role == "assistant" and place > 0:
                before = self._text.chat(messages[:place], answer_follows=True)
                after = self._text.chat(messages[: place + 1], answer_follows=False)
                if whole.startswith(before) and whole.startswith(after):
                    spans.append((len(before), max(len(before), len(after.rstrip()))))
        if not spans:
            before = self._text.chat(messages[:-1], answer_follows=True)
            end = self._tokenizer.eos_token or ""
            return [(before, False), (messages[-1].content + end, True)]
        pieces, done = [], 0
        for start, stop in spans:
            pieces += [(whole[done:start], False), (whole[start:stop], True)]
            done = stop
        return pieces
