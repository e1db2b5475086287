"""`sft`: supervised fine-tuning of a causal language model on completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch

from coralx.config.schema import Config
from coralx.data.examples import Example, Message
from coralx.data.tables import problem
from coralx.metrics.row_scores import RowScores
from coralx.tasks.causal_lm import CausalText, Ids
from coralx.tasks.protocol import Encoded, Scores
from coralx.text import brief, counted


class SupervisedFineTuning:
    """Trains on the tokens of completions, and on nothing else.

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
        """Prompt and completion, cut at the end. Left out are rows whose prompt leaves no room for
        a token of the completion, and those whose answer is nothing but its end. Raises ConfigError
        if none is left, or where the chat template does not show a turn."""
        rows, targets, kept, cut, empty = [], [], [], 0, 0
        for number, example in enumerate(examples):
            ids, places = self._tokens(example)
            learnt = [place for place in places if place > 0]  # nothing predicts the first token
            is_end_only = all(ids[place] in self._end for place in learnt)
            if is_end_only or not self._has_answer(example.messages[-1]):
                empty += 1
                continue
            within = tuple(place for place in learnt if place < self._max_length)
            if within:
                cut += len(ids) > self._max_length
                rows.append(ids[: self._max_length])
                targets.append(within)
                kept.append(number)
        left_out = len(examples) - len(rows) - empty
        if not rows:
            self._refuse(empty, left_out)
        labels = np.zeros(len(rows), dtype=np.int64)
        return Encoded(tuple(rows), labels, tuple(targets), cut, left_out, empty, tuple(kept))

    def _refuse(self, empty: int, left_out: int) -> NoReturn:
        """Raise ConfigError for rows of which none can be learnt."""
        if left_out:
            raise problem(
                "model.max_length",
                f"{self._max_length}: no prompt leaves room for its completion",
                "Raise max_length.",
            )
        raise problem(
            "data",
            f"of {counted(empty, 'row')}, none has an answer to learn: there is nothing in it but "
            "special tokens",
            "Give rows whose answers have a text.",
        )

    def _has_answer(self, message: Message) -> bool:
        """Whether an answer has anything to learn but that it ends."""
        return message.is_learnt and bool(self._text.plain(message.content).strip())

    def _tokens(self, example: Example) -> tuple[Ids, list[int]]:
        """A row's tokens, and the places of those that are to be learnt."""
        opening: Ids = () if example.is_chat else self._text.beginning
        ids, places = opening, list[int]()
        for text, is_answer in self._pieces(example):
            is_first = len(ids) == len(opening)
            piece = self._text.ids(text) if is_first else self._text.following(text)
            if is_answer:
                places += range(len(ids), len(ids) + len(piece))
            ids += piece
        # A chat template ends the answer itself.
        if not example.is_chat and ids[-1:] != self._end:
            places += range(len(ids), len(ids) + len(self._end))
            ids += self._end
        return ids, places

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        """Mean negative log-likelihood over the completions' tokens, in nats."""
        sequences = [data.ids[row] for row in rows]
        places = [data.targets[row] for row in rows]
        if self._fused_loss:
            return self._loss_inside(model, sequences, places)
        return -self._text.log_probabilities(model, sequences, places).mean()

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        return sum(len(data.targets[row]) for row in rows)

    def _loss_inside(
        self, model: Any, sequences: Sequence[Ids], places: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """The same loss, computed by the model itself, which may do without holding all logits."""
        # A mixture of experts may add a loss of its router, which must leave padding out.
        routed = getattr(model.config.get_text_config(), "output_router_logits", False)
        batch = self._text.batch(sequences, masked=bool(routed))
        labels = torch.full(batch["input_ids"].shape, -100)  # what transformers leaves out
        for row, (ids, own_places) in enumerate(zip(sequences, places, strict=True)):
            labels[row, list(own_places)] = torch.tensor([ids[place] for place in own_places])
        labels = labels.to(self._device)  # all at once
        loss: torch.Tensor = model(**batch, labels=labels, use_cache=False).loss
        return loss

    def scores(self, model: Any, data: Encoded, rows: Sequence[int]) -> Scores:
        """Negative log-likelihood and number of tokens of each completion, shape (rows, 2)."""
        places = [data.targets[row] for row in rows]
        logs = self._text.log_probabilities(model, [data.ids[row] for row in rows], places)
        counts = [len(own_places) for own_places in places]
        starts = np.cumsum([0, *counts[:-1]])
        sums = np.add.reduceat(-logs.cpu().double().numpy(), starts)
        return np.column_stack([sums, counts]).astype(np.float64)

    def by_row(self, scores: Scores, data: Encoded) -> RowScores:
        return RowScores(scores, None)

    def _pieces(self, example: Example) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is an answer to be learnt."""
        if not example.is_chat:
            prompt, completion = example.messages
            return [(prompt.content, False), (completion.content, True)]
        return self._turns(example.messages)

    def _turns(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """A chat cut at its answers. A template that rewrites earlier turns when later ones come
        (as reasoning models' do) leaves only the last answer to be learnt."""
        chat = self._text.chat(messages, answer_follows=False)
        self._require_shown(messages, chat)
        spans = []
        for place, message in enumerate(messages):
            if message.role == "assistant" and place > 0 and self._has_answer(message):
                before = self._text.chat(messages[:place], answer_follows=True)
                after = self._text.chat(messages[: place + 1], answer_follows=False)
                if chat.startswith(before) and chat.startswith(after):
                    spans.append((len(before), max(len(before), len(after.rstrip()))))
        if not spans:  # it rewrites the last answer, too: that one is written behind the prompt
            before = self._text.chat(messages[:-1], answer_follows=True)
            end = self._tokenizer.eos_token or ""
            return [(before, False), (messages[-1].content + end, True)]
        pieces, done = [], 0
        for start, stop in spans:
            pieces += [(chat[done:start], False), (chat[start:stop], True)]
            done = stop
        return pieces

    def _require_shown(self, messages: Sequence[Message], chat: str) -> None:
        """Raise ConfigError for a turn that the template drops, as some do with roles that they do
        not know. The assistant's turns they may rewrite."""
        for place, message in enumerate(messages):
            content = self._text.plain(message.content).strip()
            if message.role == "assistant" or content in chat:
                continue
            # A template may also show a turn in other words: then other words change the chat.
            changed = Message(message.role, f"{content} x")
            other = [*messages[:place], changed, *messages[place + 1 :]]
            if self._text.chat(other, answer_follows=False) == chat:
                raise problem(
                    "data",
                    f"the base's chat template leaves out turns of the role {message.role!r}: "
                    f"{brief(content)}",
                    "Remove these turns from the chats, or take a base whose template shows them.",
                )
