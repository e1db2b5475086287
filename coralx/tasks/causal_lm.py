"""What tasks of causal language models share: text to token ids, chats, and next-token logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jinja2 import TemplateError

from coralx.data.examples import Message
from coralx.data.tables import problem
from coralx.tasks.protocol import padded

Ids = tuple[int, ...]

HEAD_ROWS = 1 << 14
"""Rows of a head's weight that are held in float32 at once."""

TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""The names in models' configs of what some do to their logits after the head."""


def needs_mask(device: torch.device) -> bool:
    """Whether batches of causal models have a mask on such a device.

    Their real tokens come out the same with it and without: padding stands on the right, and no
    token sees what follows it, as `base_checks.require_causal` makes sure. On a CUDA GPU a mask
    rules out flash attention. On a CPU there is one: without, other kernels compute the gradients
    and round otherwise, but runs are to stay what they were to the last bit.
    """
    return device.type != "cuda"


class CausalText:
    """Text to token ids as a causal model saw it in training, and next-token logits."""

    def __init__(self, tokenizer: Any, device: torch.device) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self.masks = needs_mask(device)
        """Whether batches say which of their tokens are padding."""
        added = tokenizer.added_tokens_decoder.values()
        self._special = {*tokenizer.all_special_tokens, *(t.content for t in added if t.special)}
        self.unknown: int | None = tokenizer.unk_token_id
        self.beginning = self._beginning()
        separators = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, 0)
        self.separator: Ids = (next(id_ for id_ in separators if id_ is not None),)
        # SentencePiece vocabularies put a space before whatever they tokenise first.
        self._anchor = "\n" if "".join(tokenizer.tokenize("a")).startswith("▁") else ""

    def plain(self, text: str) -> str:
        """A text from the data without the tokenizer's special tokens, which would end its turn or
        open another."""
        # Again until there is none: taking one out may join two halves of another.
        while any(special in text for special in self._special):
            for special in self._special:
                text = text.replace(special, "")
        return text

    def ids(self, text: str) -> Ids:
        """Tokens of a text that opens a sequence, without special tokens."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def following(self, text: str) -> Ids:
        """Tokens of a text that continues another."""
        anchor = self.ids(self._anchor) if self._anchor else ()
        both = self.ids(self._anchor + text)
        return both[len(anchor) :] if both[: len(anchor)] == anchor else self.ids(text)

    def chat(self, messages: Sequence[Message], *, answer_follows: bool) -> str:
        """The turns written out by the tokenizer's chat template; where `answer_follows`, with what
        it puts before an answer. Raises ConfigError where it has no template, or refuses the chat.
        """
        template = self._tokenizer.chat_template
        if not template or (isinstance(template, dict) and "default" not in template):
            named = f" called default; it has {', '.join(map(repr, template))}" if template else ""
            raise problem(
                "data.chat",
                f"the base's tokenizer has no chat template{named}",
                "Set data.chat: false and write the prompt out (sft: in columns of prompts and "
                "completions), or take an instruct model"
                + (", or rename one of its templates to default." if template else "."),
            )
        turns = [{"role": turn.role, "content": self.plain(turn.content)} for turn in messages]
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
        question, answer = [Message("user", "1")], "2"
        before = self.chat(question, answer_follows=True)
        chat = self.chat([*question, Message("assistant", answer)], answer_follows=False)
        rest = chat.removeprefix(before)
        gap = rest[: len(rest) - len(rest.lstrip())]
        return gap if rest.startswith(gap + answer) else ""

    def _beginning(self) -> Ids:
        """Special tokens that the tokenizer puts before a text."""
        ids, plain = tuple(self._tokenizer("a")["input_ids"]), self.ids("a")
        starts = (n for n in range(len(ids)) if ids[n : n + len(plain)] == plain)
        return ids[: next(starts, 0)]

    def batch(self, sequences: Sequence[Ids], *, masked: bool = False) -> dict[str, torch.Tensor]:
        """Sequences padded on the right, where a causal model never looks: with a mask if they are
        to be `masked`, or where it costs nothing."""
        padding = self._tokenizer.pad_token_id
        return padded(sequences, padding, self._device, masked=masked or self.masks)

    def logits(
        self,
        model: Any,
        sequences: Sequence[Ids],
        places: Sequence[Sequence[int]],
        *,
        exact: bool = False,
    ) -> torch.Tensor:
        """Float32 logits of the tokens at `places` of each sequence, given what stands before
        them; shape (places in all, vocabulary), row by row. A place may lie just past the end.

        Only the positions that are needed go through the language-model head. That of a 16-bit base
        rounds logits to eight bits, which makes ties; `exact` computes them again in float32,
        without gradient.
        """
        batch = self.batch(sequences)
        first = min(min(row) for row in places) - 1  # the logits of a token stand one place before
        longest = batch["input_ids"].shape[1]
        keep = longest - first
        # Counted from the end, as some models keep all logits. Tensors are sent before the forward
        # pass: each sent after it would have the host wait until a GPU is through with it.
        ends = [(row, place - 1 - longest) for row, own in enumerate(places) for place in own]
        rows, columns = torch.tensor(ends, device=self._device).unbind(1)
        with _watched(model.get_output_embeddings()) as states:
            out = model(**batch, use_cache=False, logits_to_keep=keep).logits
        selected: torch.Tensor = out[rows, columns]
        if exact and selected.dtype != torch.float32 and _is_plain_head(model, states, out):
            return _full_logits(model.get_output_embeddings().weight, states[0][rows, columns])
        return selected.float()

    def log_probabilities(
        self, model: Any, sequences: Sequence[Ids], places: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Log-probability of each sequence's own tokens at `places`, row by row."""
        own = [ids[place] for ids, row in zip(sequences, places, strict=True) for place in row]
        tokens = torch.tensor(own, device=self._device)
        logits = self.logits(model, sequences, places)
        return -torch.nn.functional.cross_entropy(logits, tokens, reduction="none")


def longest_fitting(prompt: Callable[[str], Ids], text: str, room: int) -> Ids | None:
    """The prompt with the longest beginning of `text` that takes at most `room` tokens; None where
    not even the prompt without a text fits. It is the longest to within a word: bisection takes the
    number of tokens to grow with the text, while a word's beginning may take more than the word."""
    best = prompt("")
    if len(best) > room:
        return None
    low, high = 0, len(text) - 1
    while low <= high:
        middle = (low + high) // 2
        tried = prompt(text[:middle].rstrip())
        if len(tried) <= room:
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


# -- logits in float32 -----------------------------------------------------------------------------


@contextmanager
def _watched(head: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collects what goes into a language-model head."""
    states: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0].detach()))
    try:
        yield states
    finally:
        hook.remove()


def _is_plain_head(model: Any, states: Sequence[torch.Tensor], out: torch.Tensor) -> bool:
    """Whether logits are the head's weight times its one input, and nothing else."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    return (
        isinstance(head, torch.nn.Linear)
        and head.bias is None
        and head.weight.is_floating_point()
        and len(states) == 1
        and states[0].shape[:2] == out.shape[:2]
        and not any(getattr(config, name, None) for name in TRANSFORMS)
    )


def _full_logits(weight: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Logits in float32, shape (states, vocabulary), of states of shape (states, width)."""
    with torch.autocast(weight.device.type, enabled=False):
        parts = [
            states.float() @ weight[start : start + HEAD_ROWS].detach().float().T
            for start in range(0, len(weight), HEAD_ROWS)
        ]
    return torch.cat(parts, dim=1)
