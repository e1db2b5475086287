"""Answers of a causal language model to the prompts of attacks, by greedy decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from coralx.data.examples import Example, Message
from coralx.data.tables import problem
from coralx.tasks.causal_lm import CausalText, Ids, longest_fitting
from coralx.tasks.protocol import Encoded
from coralx.text import counted


class Answers:
    """Encodes prompts as a chat model reads them (in the tokenizer's chat template, if it has one),
    and generates `max_new_tokens` at most, the most probable one each time."""

    def __init__(
        self, tokenizer: Any, max_length: int, max_new_tokens: int, device: torch.device
    ) -> None:
        self._text = CausalText(tokenizer, device)
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._device = device
        self.max_new_tokens = max_new_tokens

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Prompts of at most `model.max_length` tokens; longer ones lose the end of their text, and
        are counted. Raises ConfigError where there is no room for any."""
        rows, cut = [], 0
        for example in examples:
            text = self._text.plain(example.text)
            ids = self._prompt(text)
            if len(ids) > self._max_length:
                fitting = longest_fitting(self._prompt, text, self._max_length)
                if fitting is None:
                    raise problem(
                        "model.max_length",
                        f"{self._max_length}, but the chat template alone takes "
                        f"{counted(len(self._prompt('')), 'token')} around an attack's prompt",
                        "Raise max_length.",
                    )
                ids, cut = fitting, cut + 1
            rows.append(ids)
        return Encoded(tuple(rows), np.zeros(len(rows), dtype=np.int64), cut=cut)

    def _prompt(self, text: str) -> Ids:
        if self._tokenizer.chat_template:
            return self._text.ids(self._text.chat([Message("user", text)], answer_follows=True))
        return self._text.beginning + self._text.ids(text) or self._text.separator

    def of(
        self, model: Any, data: Encoded, rows: Sequence[int], beat: Callable[[], None]
    ) -> list[str]:
        """The answers to the prompts of these rows; `beat` is called at every token."""
        # Padded on the left, as answers go on from the end of the row.
        prompts = [data.ids[row] for row in rows]
        longest = max(map(len, prompts))
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(prompts), longest), padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, prompt in enumerate(prompts):
            ids[place, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask[place, longest - len(prompt) :] = 1
        with _as_before(model), _only_where_adapted(model):
            generated = model.generate(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                generation_config=self._greedy(model),
                stopping_criteria=StoppingCriteriaList([_Beating(beat)]),
            )
        answers = generated[:, longest:]
        texts: list[str] = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _greedy(self, model: Any) -> GenerationConfig:
        """The most probable token at every step, whatever the base's own generation config says."""
        ends = model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or ())
        if self._tokenizer.eos_token_id is not None:
            ends.append(self._tokenizer.eos_token_id)
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            pad_token_id=self._tokenizer.pad_token_id or 0,
            eos_token_id=sorted(set(ends)) or None,
        )


@contextmanager
def _as_before(model: Any) -> Iterator[None]:
    """Restores gradient checkpointing: Unsloth turns it off to generate, and does not turn it on
    again for a model that is not in training mode."""
    flags = {
        module: module.gradient_checkpointing
        for module in model.modules()
        if hasattr(module, "gradient_checkpointing")
    }
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.gradient_checkpointing = flag


@contextmanager
def _only_where_adapted(model: Any) -> Iterator[None]:
    """Disables wrapped layers that the active adapter leaves alone. They give what the base gives
    either way, but Unsloth's decoding reads the adapter's weights off every layer that is not
    disabled, without asking whether there are any: a KeyError."""
    untouched = [
        module
        for module in model.modules()
        if isinstance(module, BaseTunerLayer)
        and not module.disable_adapters
        and module._get_available_adapters().isdisjoint(module.active_adapters)
    ]
    # Not by enable_adapters, which also sets whether weights of other adapters take gradients.
    for module in untouched:
        module._disable_adapters = True
    try:
        yield
    finally:
        for module in untouched:
            module._disable_adapters = False


class _Beating(StoppingCriteria):  # type: ignore[misc]
    """Never stops the generation, but calls `beat` at every token."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._beat()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
