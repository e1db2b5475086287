"""Whether a base has the layers that a search space asks for, and can be given kept states."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BloomConfig,
    GPT2Config,
    OPTConfig,
)

from coralx.config import Config
from coralx.errors import ConfigError
from coralx.records.genomes import Genes
from coralx.training import adaptable_layers
from coralx.training.base_model import Base
from coralx.training.frozen_prefix import FrozenPrefix
from coralx.training.prefix_cache import PrefixCache
from tests.support.factories import make_config

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}


def config(*layers: object, modules: object = "all-linear") -> Config:
    return make_config(
        model={"base": "a-base", "max_length": 16},
        search_space={"layers": {"choices": layers}, "target_modules": {"choices": [modules]}},
    )


def bert(**more: Any) -> Any:
    described = BertConfig(**SIZES, intermediate_size=32, **more)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(described)


@pytest.mark.parametrize(
    ("layers", "modules", "said"),
    [
        (("all", 4), "all-linear", ["choices.1: 4, but the base has 3 layers"]),
        (("top-half", 2), "all-linear", ["choices.1: 2 means the same as top-half: 2 of 3 layers"]),
        (("all", 3), "all-linear", ["choices.1: 3 means the same as all: 3 of 3 layers"]),
        (
            (1, "all"),
            ["pooler.dense"],
            ["choices.0: 1: these layers have none of the target modules pooler.dense"],
        ),
    ],
)
def test_choices_that_do_not_fit_the_base_are_refused(
    layers: tuple[object, ...], modules: object, said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        adaptable_layers.check(config(*layers, modules=modules), bert(), ("classifier",))
    assert [f"search_space.layers.{line}" for line in said] == list(caught.value.problems)


def test_choices_that_fit_are_not() -> None:
    adaptable_layers.check(config("all", "top-half", 1), bert(), ("classifier",))


def test_a_base_with_one_layer_for_all_has_no_top() -> None:
    described = AlbertConfig(**SIZES, intermediate_size=32, embedding_size=8)
    with torch.device("meta"):
        albert = AutoModelForSequenceClassification.from_config(described)
    with pytest.raises(ConfigError, match=r"search_space\.layers: the base does not have its"):
        adaptable_layers.check(config("all", "top-half"), albert, ("classifier",))
    adaptable_layers.check(config("all"), albert, ("classifier",))


def prefix(model: Any, task: TaskType) -> FrozenPrefix:
    names = tuple(adaptable_layers.linear_names(model, ()))
    base = Base("base", model.requires_grad_(False), None, task, linear=names, layers=3, padding=0)
    wrapped = get_peft_model(model, LoraConfig(task_type=task, r=1, target_modules=[names[0]]))
    assert isinstance(wrapped, PeftModel)
    texts = [(5, 6, 7), (9, 8, 7, 6, 5, 4, 3)]
    return FrozenPrefix(wrapped, base, PrefixCache(1 << 20), texts, nullcontext)


@pytest.mark.parametrize(
    "described",
    [
        GPT2Config(vocab_size=64, n_embd=16, n_layer=3, n_head=2, n_positions=32),
        BloomConfig(**SIZES),
        OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=32),
    ],
    ids=["gpt2", "bloom", "opt"],
)
def test_language_models_of_other_forms_can_be_given_kept_states(described: Any) -> None:
    torch.manual_seed(0)
    found = prefix(AutoModelForCausalLM.from_config(described), TaskType.CAUSAL_LM)
    with found.below(Genes(layers=1)):
        assert found.remarks == ()
        assert all(not module.training for module in found.modules)
    assert found.modules == []


def test_a_base_that_computes_otherwise_is_not_given_any() -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SIZES, intermediate_size=8))
    layers = model.bert.encoder.layer
    # A hook of the base's own, between two layers.
    layers[1].register_forward_pre_hook(lambda _, args: (args[0] * torch.rand(()), *args[1:]))
    found = prefix(model, TaskType.SEQ_CLS)
    with found.below(Genes(layers="top-half")):
        (remark,) = found.remarks
        assert "does not compute the same with states that were kept" in remark
    with found.below(Genes(layers="all")):
        assert found.remarks == ()
    assert "forward" not in layers[0].__dict__
