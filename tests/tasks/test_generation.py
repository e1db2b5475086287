"""Answers of a language model whose adapter leaves layers alone that others have wrapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear, LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer

from coralx.data.examples import Example
from coralx.tasks.generation import Answers

PROMPTS = [Example("the film"), Example("a road is very slow"), Example("team")]
PARTS = {"attention": ["q_proj", "k_proj", "v_proj"], "mlp": ["gate_proj", "up_proj", "down_proj"]}


@pytest.fixture(scope="module")
def model(specimen: Path) -> Any:
    """All linear layers are wrapped for `default`, of which adapters named as in PARTS adapt some,
    `embedding` none, and each of them changes what the model says."""
    base = AutoModelForCausalLM.from_pretrained(specimen / "model", local_files_only=True)
    wrapped = get_peft_model(base, LoraConfig(r=1, target_modules="all-linear"))
    for name, targets in {**PARTS, "embedding": ["embed_tokens"]}.items():
        torch.manual_seed(0)
        told = LoraConfig(r=4, lora_alpha=64, target_modules=targets, init_lora_weights=False)
        wrapped.add_adapter(name, told)
    return wrapped.eval()


@pytest.fixture(scope="module")
def answers(specimen: Path) -> Answers:
    tokenizer = AutoTokenizer.from_pretrained(specimen / "model", local_files_only=True)
    return Answers(tokenizer, 32, 6, torch.device("cpu"))


def asked(model: Any, answers: Answers, beat: Any = lambda: None) -> list[str]:
    data = answers.encode(PROMPTS)
    with torch.no_grad():
        return answers.of(model, data, range(len(PROMPTS)), beat)


@pytest.fixture
def reading_every_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding as Unsloth does it: the active adapter is read off every layer that is enabled."""
    forward = Linear.forward

    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.disable_adapters:
            (adapter,) = self.active_adapters
            assert self.lora_A[adapter].weight is not None
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Linear, "forward", read)


def switched_off(model: Any) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and module.disable_adapters
    }


@pytest.mark.parametrize("adapter", [*PARTS, "embedding"])
def test_partial_adapters_answer_where_decoding_reads_the_adapter_off_every_layer(
    model: Any, answers: Answers, adapter: str, request: pytest.FixtureRequest
) -> None:
    model.set_adapter(adapter)
    told = asked(model, answers)
    with model.disable_adapter():
        assert asked(model, answers) != told
    request.getfixturevalue("reading_every_adapter")
    assert asked(model, answers) == told
    assert switched_off(model) == set()


def test_layers_are_switched_on_again_where_answering_fails(model: Any, answers: Answers) -> None:
    model.set_adapter("attention")
    seen: list[set[str]] = []

    def beat() -> None:
        seen.append(switched_off(model))
        raise MemoryError

    with pytest.raises(MemoryError):
        asked(model, answers, beat)
    leaves = {name.rsplit(".", 1)[-1] for name in seen[0]}
    assert leaves == {"o_proj", "embed_tokens", *PARTS["mlp"]}
    assert switched_off(model) == set()


def test_what_was_switched_off_before_stays_so(model: Any, answers: Answers) -> None:
    model.set_adapter("mlp")
    with model.disable_adapter():
        before = switched_off(model)
        asked(model, answers)
        assert switched_off(model) == before != set()


def test_answering_leaves_open_what_is_trained(model: Any, answers: Answers) -> None:
    model.set_adapter("mlp")
    before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    asked(model, answers)
    after = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert after == before
    assert {name.split(".")[-4] for name in after} == set(PARTS["mlp"])
