"""Text as a causal language model reads it, and the next-token logits that it answers with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError

from coralx.data.examples import Message
from coralx.data.tables import problem
from coralx.data.tasks import padded

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
                "Set data.chat: false and write the prompt out (sft: in columns of prompts and "
                "completions), or take an instruct model.",
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
