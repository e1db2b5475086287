"""The layers of a base on a CPU: what torch and PEFT compute, in other operations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.training import cpu_dropout, cpu_layers
from coralx.training.cpu_dropout import NAME, kept
from coralx.training.cpu_layers import (
    AdaptedLinear,
    FrozenLinear,
    forget_half,
    install,
    use_adapted_layers,
)

ADAPTED = ["query", "dense"]


def bert(*, quick: bool, dropout: float = 0.0, lora: dict[str, Any] | None = None) -> Any:
    """A tiny encoder with an adapter whose B is not zero, always the same one."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    base = BertModel(config).requires_grad_(False)
    if quick:
        install(base, ["pooler"])
    torch.manual_seed(1)
    values = {"r": 4, "lora_alpha": 8, "target_modules": ADAPTED, "init_lora_weights": False}
    described = LoraConfig(**values | (lora or {}))
    return get_peft_model(base, use_adapted_layers(described)).train()


@contextmanager
def precision(name: str) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16"):
        yield


def output_of(model: Any) -> torch.Tensor:
    ids = torch.arange(2, 26).view(3, 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    output: torch.Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return output


def output_and_gradients(model: Any, name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    with precision(name):
        output = output_of(model)
    output.float().pow(2).mul(torch.arange(32) + 1.0).mean().backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return output.detach().float(), trained


@pytest.mark.parametrize(("name", "near"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_a_step_is_that_of_torch_and_peft(name: str, near: float) -> None:
    (plain, expected), (quick, found) = (
        output_and_gradients(bert(quick=is_quick), name) for is_quick in (False, True)
    )
    assert (quick - plain).norm() <= near * plain.norm()
    assert found.keys() == expected.keys()
    assert len(found) == 2 * 2 * 4  # A and B of query and three dense layers, twice
    for parameter, gradient in expected.items():
        assert found[parameter].dtype == torch.float32
        assert (found[parameter] - gradient).norm() <= near * gradient.norm(), parameter


def test_frozen_weights_are_cast_to_half_precision_once() -> None:
    model = bert(quick=True)
    layers = [m for m in model.modules() if isinstance(m, FrozenLinear)]
    assert len(layers) == 2 * 6  # of both layers; the pooler is left alone
    output_and_gradients(model, "bf16")
    held = [layer.weights_in(torch.bfloat16)[0] for layer in layers]
    for layer, half in zip(layers, held, strict=True):
        assert layer.weights_in(torch.bfloat16)[0] is half
        assert torch.equal(half, layer.weight.bfloat16())
    # A base too large to be held twice is cast each time, to the same bits.
    layers[0].holds_half, layers[0]._half = False, None
    again = layers[0].weights_in(torch.bfloat16)[0]
    assert torch.equal(again, held[0])
    assert layers[0].weights_in(torch.bfloat16)[0] is not again


def test_copies_in_half_precision_are_given_back() -> None:
    model = bert(quick=True)
    output_and_gradients(model, "bf16")
    layers = [m for m in model.modules() if isinstance(m, FrozenLinear)]
    assert all(layer._half is not None for layer in layers)
    forget_half(model)
    assert all(layer._half is None for layer in layers)


def test_models_may_change_outputs_in_place() -> None:
    """As they may change those of torch's layers."""
    query = bert(quick=True).base_model.model.encoder.layer[0].attention.self.query
    assert isinstance(query, AdaptedLinear)
    for layer in (query, query.base_layer):
        x = torch.randn(2, 3, 32, requires_grad=True)
        output = layer(x)
        expected = 2.0 * output.detach() + 1.0
        output.mul_(2.0).add_(1.0)
        assert torch.equal(output, expected)
        output.sum().backward()
        plain = x.detach().clone().requires_grad_()
        layer(plain).sum().backward()
        assert x.grad is not None
        assert plain.grad is not None
        assert torch.allclose(x.grad, 2.0 * plain.grad, atol=1e-6)


def test_attention_that_drops_nothing_stays_torchs() -> None:
    """Some bases look for the very name of torch's own."""
    assert bert(quick=True).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"lora_bias": True, "bias": "none"}])
def test_other_kinds_of_lora_are_left_to_peft(lora: dict[str, Any]) -> None:
    if "lora_bias" in lora:  # the base's layers have biases, which it needs
        lora = {**lora, "target_modules": ["query"]}
    (plain, expected), (quick, found) = (
        output_and_gradients(bert(quick=is_quick, lora=lora), "fp32") for is_quick in (False, True)
    )
    assert torch.allclose(quick, plain, atol=1e-5)
    assert found.keys() == expected.keys()


def test_adapters_switched_off_and_side_by_side_are_as_with_peft() -> None:
    outputs = []
    for is_quick in (False, True):
        model = bert(quick=is_quick).eval()
        torch.manual_seed(2)
        other = LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
        model.add_adapter("other", use_adapted_layers(other))
        ids = torch.arange(8).view(1, 8)
        with torch.no_grad():
            first = model(input_ids=ids).last_hidden_state
            with model.disable_adapter():
                untuned = model(input_ids=ids).last_hidden_state
            model.set_adapter("other")
            second = model(input_ids=ids).last_hidden_state
            model.base_model.set_adapter(["default", "other"])
            both = model(input_ids=ids).last_hidden_state
        outputs.append(torch.stack([first, untuned, second, both]))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
    assert len({round(float(each.abs().sum()), 3) for each in outputs[1]}) == 4


def test_a_mask_keeps_its_share_and_follows_from_torchs_seed() -> None:
    for rate in (0.1, 0.5, 0.001):
        torch.manual_seed(3)
        first = kept((401, 503), rate, torch.bfloat16)
        torch.manual_seed(3)
        second = kept((401, 503), rate, torch.float32)
        assert torch.equal(first.float(), second)
        assert set(first.unique().tolist()) == {0.0, 1.0}
        error = math.sqrt(rate * (1 - rate) / first.numel())
        assert abs(first.float().mean().item() - (1 - rate)) < 5 * error
        # No mask repeats another, nor is it the same from row to row.
        assert not torch.equal(second, kept((401, 503), rate, torch.float32))
        assert second.sum(1).std() > 0


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_dropout_are_those_of_torch(rate: float) -> None:
    x = torch.randn(4, 5)
    assert torch.equal(cpu_dropout.dropped(x, rate), torch.nn.functional.dropout(x, rate))


def test_dropout_of_layers_and_attention_averages_to_the_output_without() -> None:
    model = bert(quick=True, dropout=0.1, lora={"lora_dropout": 0.1})
    assert model.config._attn_implementation == NAME
    still = output_and_gradients(bert(quick=True), "fp32")[0]
    draws = []
    for seed in range(200):
        torch.manual_seed(seed)
        draws.append(output_and_gradients(model, "fp32")[0])
    torch.manual_seed(0)
    assert torch.equal(output_and_gradients(model, "fp32")[0], draws[0])
    assert not torch.equal(draws[0], draws[1])
    near = (torch.stack(draws).mean(0) - still).norm() / still.norm()
    assert near < 0.1
    with torch.no_grad():
        assert torch.allclose(output_of(model.eval()), still, atol=1e-5)


def test_attention_with_dropout_is_that_of_torch_but_for_its_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every value kept, and with grouped keys, it is what torch computes."""
    monkeypatch.setattr(cpu_dropout, "dropped", lambda x, _: x)
    query = torch.randn(2, 4, 6, 8)
    key, value = torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    mask[0, :, :, 4:] = False
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    found, _ = cpu_dropout._attention(module, query, key, value, mask, dropout=0.1)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), mask
    )
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-5)


def test_without_onednn_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    near = cpu_layers.linear(x, weight, bias)
    monkeypatch.setattr(cpu_layers, "HAS_ONEDNN", False)
    exact = cpu_layers.linear(x, weight, bias)
    assert torch.equal(exact, torch.nn.functional.linear(x, weight, bias))
    assert torch.allclose(near, exact, atol=1e-6)


def test_peft_puts_them_on_the_layers_that_were_installed() -> None:
    adapted = [m for m in bert(quick=True).modules() if isinstance(m, AdaptedLinear)]
    assert len(adapted) == 2 * 4
    assert not [m for m in bert(quick=False).modules() if isinstance(m, AdaptedLinear)]


@pytest.mark.parametrize(("revision", "has_them"), [(3, False), (4, True)])
def test_a_run_of_an_earlier_version_goes_on_without_them(
    tiny_config: dict[str, Any], revision: int, has_them: bool
) -> None:
    backend: Any = create("peft")
    backend.prepare(parse_config(tiny_config, "test"), "fp32", 1, lambda _: None, revision)
    kinds = {type(module) for module in backend._model.modules()}
    assert (FrozenLinear in kinds) is (cpu_dropout.QuickDropout in kinds) is has_them
    assert (backend._model.config._attn_implementation == NAME) is has_them


def test_recomputed_activations_have_the_same_masks() -> None:
    found = []
    for recomputes in (False, True):
        model = bert(quick=True, dropout=0.1, lora={"lora_dropout": 0.1})
        if recomputes:
            model.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
            model.base_model.model.enable_input_require_grads()
        torch.manual_seed(5)
        found.append(output_and_gradients(model, "fp32")[1])
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-6), name
