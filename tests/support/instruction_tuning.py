"""Instruction tuning on tiny bases."""

from __future__ import annotations

import copy
from typing import Any

import torch

from coralx.data.examples import Example, Message
from coralx.tasks.protocol import Encoded
from coralx.tasks.sft import SupervisedFineTuning
from tests.support.factories import make_config
from tests.support.languages import Language

KINDS = ("words", "pieces", "bytes")


STABLE = (
    "{% for message in messages %}"
    "[{{ message['role'] }}] {{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def instruction_tuning(
    language: Language, max_length: int = 128, *, fused_loss: bool = False
) -> SupervisedFineTuning:
    config = make_config(model={"task": "sft", "max_length": max_length})
    return SupervisedFineTuning(
        language.tokenizer, config, torch.device("cpu"), fused_loss=fused_loss
    )


def pair(prompt: str, completion: str) -> Example:
    turns = (Message("user", prompt), Message("assistant", completion))
    return Example(prompt + completion, messages=turns)


def chat(*turns: tuple[str, str]) -> Example:
    return Example("", messages=tuple(Message(*turn) for turn in turns), is_chat=True)


def with_template(language: Language, template: Any) -> Language:
    tokenizer = copy.deepcopy(language.tokenizer)
    tokenizer.chat_template = template
    return Language(tokenizer, language.model)


def learnt(language: Language, data: Encoded, row: int = 0) -> list[str]:
    """The runs of tokens that count, decoded."""
    runs: list[list[int]] = []
    for place in data.targets[row]:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [
        language.tokenizer.decode([data.ids[row][place] for place in run]).strip() for run in runs
    ]
