"""A stand-in for Unsloth that remembers what it is asked, and loads models as it does on a GPU:
with the type that it is told, after draws of its own, with a padding token of its own."""

from __future__ import annotations

import os
from typing import Any

ENVIRONMENT = dict(os.environ)
"""As it was when this was imported."""

ASKED: list[dict[str, Any]] = []
"""The arguments of each call."""

OWN_PADDING = 7


class FastLanguageModel:
    """Its two functions that CoralX calls."""

    @staticmethod
    def from_pretrained(model_name: str, dtype: Any, **asked: Any) -> tuple[Any, Any]:
        import torch
        from transformers import (
            AutoModelForCausalLM,
            AutoModelForSequenceClassification,
            AutoTokenizer,
        )

        ASKED.append(asked)
        tokenizer = AutoTokenizer.from_pretrained(model_name)
        if tokenizer.pad_token is None:
            raise RuntimeError("Unsloth: Could not find a valid pad token for it - please inspect")
        torch.manual_seed(asked["random_state"] + 1)
        model: Any
        if "num_labels" in asked:
            model = AutoModelForSequenceClassification.from_pretrained(
                model_name,
                dtype=dtype,
                num_labels=asked["num_labels"],
                ignore_mismatched_sizes=asked["ignore_mismatched_sizes"],
            )
        else:
            model = AutoModelForCausalLM.from_pretrained(model_name, dtype=dtype)
        model.config.pad_token_id = OWN_PADDING
        return model, tokenizer

    @staticmethod
    def get_peft_model(model: Any, **asked: Any) -> Any:
        ASKED.append(asked)
        return model
