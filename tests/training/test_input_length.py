"""How long a text may be: what the base can read."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import transformers

from coralx.config import parse_config
from coralx.errors import ConfigError
from coralx.training import adaptable_layers
from coralx.training.input_length import longest_input
from tests.support.tiny_shapes import SMALL

ENDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "bert": ("Bert", {"max_position_embeddings": 20}, 20),
    "roberta": ("Roberta", {"max_position_embeddings": 20}, 18),
    "xlm-roberta": ("XLMRoberta", {"max_position_embeddings": 20}, 18),
    "camembert": ("Camembert", {"max_position_embeddings": 20}, 18),
    "mpnet": ("MPNet", {"max_position_embeddings": 20}, 18),
    "longformer": ("Longformer", {"max_position_embeddings": 20, "attention_window": 4}, 18),
    "opt": (
        "OPT",
        {"max_position_embeddings": 20, "ffn_dim": 32, "word_embed_proj_dim": 16},
        20,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_longest_text_is_what_the_base_can_read(name: str) -> None:
    family, shape, expected = KINDS[name]
    config = getattr(transformers, f"{family}Config")(
        **{"vocab_size": 30, "sep_token_id": 2, **ENDS, **SMALL, **shape}
    )
    model = getattr(transformers, f"{family}Model")(config).eval()
    assert longest_input(model) == expected
    with torch.no_grad():
        model(input_ids=torch.full((1, expected), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, expected + 3), 5))


def test_more_than_the_base_reads_is_refused_with_the_limit() -> None:
    roberta = transformers.RobertaModel(
        transformers.RobertaConfig(vocab_size=30, max_position_embeddings=514, **ENDS, **SMALL)
    )
    target = {"target_modules": {"choices": ["all-linear"]}}
    fitting = parse_config({"model": {"max_length": 512}, "search_space": target}, "c")
    adaptable_layers.check(fitting, roberta, ())
    longer = fitting.model_copy(
        update={"model": fitting.model.model_copy(update={"max_length": 513})}
    )
    with pytest.raises(ConfigError) as caught:
        adaptable_layers.check(longer, roberta, ())
    assert "model.max_length: 513 is more than the base reads (512 tokens)" in caught.value.message
    assert "512" in caught.value.hint
