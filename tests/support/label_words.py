"""Label words by transformers alone, to hold the task against."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from coralx.data.examples import Example
from coralx.tasks.label_tokens import LabelTokens
from coralx.training.inference import predict
from tests.support.factories import make_config, plain_log_probabilities
from tests.support.languages import Language

KINDS = ("words", "pieces", "bytes")
PROMPT = "Text: {text}\nLabel:"
TEXTS = (
    "the film is good",
    "bad",
    "a great road and an awful coffee train and a slow phone of the team",
    "it is not fine",
    "the the the the the",
    "very good film, a good film! is it?",
)


def label_tokens(
    language: Language, labels: Sequence[str], max_length: int = 128, **data: Any
) -> LabelTokens:
    config = make_config(
        model={"task": "label-tokens", "max_length": max_length}, data={"prompt": PROMPT, **data}
    )
    device = torch.device("cpu")
    return LabelTokens(language.tokenizer, config.data, max_length, labels, device)


def examples(texts: Sequence[str], classes: int = 2) -> list[Example]:
    return [Example(text, number % classes) for number, text in enumerate(texts)]


def scored(task: LabelTokens, model: Any, rows: Sequence[Example]) -> Any:
    return predict(model, task, task.encode(rows), contextlib.nullcontext)


def plain_ids(language: Language, text: str, label: str, gap: str = " ") -> tuple[Any, Any]:
    """Prompt and label as the tokenizer itself splits the finished text."""
    prompt = language.tokenizer(PROMPT.replace("{text}", text))["input_ids"]
    whole = language.tokenizer(PROMPT.replace("{text}", text) + gap + label)["input_ids"]
    assert whole[: len(prompt)] == prompt
    return prompt, whole[len(prompt) :]


def plain_probabilities(model: Any, prompt: Sequence[int], words: Sequence[Sequence[int]]) -> Any:
    with torch.no_grad():
        means = [plain_log_probabilities(model, prompt, word).mean() for word in words]
    return torch.softmax(torch.stack(means), dim=0).numpy()
