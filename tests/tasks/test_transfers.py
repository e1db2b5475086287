"""What tasks send to the device while a step goes on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from coralx.tasks.sequence_classification import SequenceClassification
from tests.support.instruction_tuning import instruction_tuning, pair
from tests.support.label_words import TEXTS, examples, label_tokens
from tests.support.languages import Language

PAIRS = [pair(f"{text} :", " good film .") for text in TEXTS]


class Sent(TorchFunctionMode):
    """Notes what is made of lists and arrays once a forward pass is through: on a GPU, the host
    would wait for the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[str] = []
        self.is_through = False

    def note(self, *_: object) -> None:
        self.is_through = True

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        indexed = name == "__getitem__" and any(isinstance(i, list) for i in _parts(args[1]))
        if self.is_through and (name in ("tensor", "as_tensor") or indexed):
            self.late.append(name)
        return function(*args, **(kwargs or {}))


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, 2))
        self.config = SimpleNamespace()

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        counts = (input_ids * attention_mask).sum(1, keepdim=True).float()
        return SimpleNamespace(logits=counts @ self.weight)


def classifying(language: Language) -> tuple[Any, Any, Any]:
    task = SequenceClassification(language.tokenizer, 32, torch.device("cpu"), padding=0)
    return task, Classifier(), task.encode(examples(TEXTS))


def by_label_words(language: Language) -> tuple[Any, Any, Any]:
    task = label_tokens(language, ("good", "very bad film"))
    return task, language.model, task.encode(examples(TEXTS))


def tuning(language: Language) -> tuple[Any, Any, Any]:
    task = instruction_tuning(language)
    return task, language.model, task.encode(PAIRS)


def tuning_with_a_fused_loss(language: Language) -> tuple[Any, Any, Any]:
    task = instruction_tuning(language, fused_loss=True)
    return task, language.model, task.encode(PAIRS)


@pytest.mark.parametrize(
    "made",
    [classifying, by_label_words, tuning, tuning_with_a_fused_loss],
    ids=lambda f: f.__name__,
)
def test_all_that_a_loss_needs_is_sent_before_the_forward_pass(
    languages: dict[str, Language], made: Callable[[Language], tuple[Any, Any, Any]]
) -> None:
    task, model, data = made(languages["words"])
    with Sent() as sent, model.register_forward_hook(sent.note):
        task.loss(model, data, range(len(data.ids))).backward()
    model.zero_grad(set_to_none=True)
    assert sent.is_through
    assert sent.late == []
