"""Padding that no mask names, as on a CUDA GPU, changes nothing of a causal model's real tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.tasks import causal_lm
from coralx.tasks.causal_lm import CausalText, needs_mask
from tests.support.instruction_tuning import instruction_tuning, pair
from tests.support.languages import Language

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
EXPERTS = {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "gpt2": GPT,  # learned positions
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},  # positions counted by the mask
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # positions in a bias, by the mask
    "mistral": {**SIZES, "sliding_window": 4},
    "gemma2": {**SIZES, "head_dim": 8, "sliding_window": 4},
    "mixtral": EXPERTS,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},  # zeroes by the mask
    "lfm2": {**SIZES, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3},
}
SEQUENCES = [tuple(range(4, 17)), (5, 9, 6, 20), tuple(range(20, 30))]
PLACES = [range(1, len(ids)) for ids in SEQUENCES]


def tiny(kind: str, tokenizer: Any, **changes: Any) -> Any:
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), pad_token_id=0, **MODELS[kind], **changes
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()  # without dropout


def gradients_of(loss: torch.Tensor, model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", MODELS)
def test_losses_and_gradients_are_those_with_a_mask(
    languages: dict[str, Language], kind: str
) -> None:
    tokenizer = languages["words"].tokenizer
    text, model = CausalText(tokenizer, CPU), tiny(kind, tokenizer)
    found = []
    for masks in (True, False):
        text.masks = masks
        logs = text.log_probabilities(model, SEQUENCES, PLACES)
        found.append((logs.detach(), gradients_of(-logs.mean(), model)))
    (masked, expected), (plain, gradients) = found
    assert torch.allclose(plain, masked, atol=1e-6)
    assert gradients.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() < 1e-5 * gradient.norm() + 1e-8 * largest, name


def test_a_mask_is_made_where_it_costs_nothing(languages: dict[str, Language]) -> None:
    assert not needs_mask(torch.device("cuda", 1))
    assert needs_mask(CPU)
    text = CausalText(languages["words"].tokenizer, CPU)
    assert text.batch(SEQUENCES)["attention_mask"].sum() == sum(map(len, SEQUENCES))
    text.masks = False
    assert text.batch(SEQUENCES).keys() == text.batch(SEQUENCES[:1]).keys() == {"input_ids"}


@pytest.mark.parametrize("task", ["label-tokens", "sft"])
def test_a_stage_without_masks_has_the_figures_of_one_with_them(
    causal_config: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    task: str,
) -> None:
    genes = Genes(rank=4, learning_rate=2e-2, dropout=0.1, batch_size=8)
    job = Job(Genome("g", 0, genes), "to-8", 0, 8, Horizon(8, 2), 1.0, str(tmp_path / "to-8"))
    figures = []
    for masks in (True, False):
        monkeypatch.setattr(causal_lm, "needs_mask", lambda _, masks=masks: masks)
        backend = create("peft")
        backend.prepare(parse_config(causal_config(task), "test"), "fp32", 1, lambda _: None)
        metrics = backend.train(job, lambda _: None).metrics
        figures.append([metrics[name] for name in ("train_loss", "gradient_norm", "eval_loss")])
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


@pytest.mark.parametrize("routed", [False, True])
def test_a_routers_own_loss_leaves_padding_out(
    languages: dict[str, Language], monkeypatch: pytest.MonkeyPatch, routed: bool
) -> None:
    """A mixture of experts may add to its loss how evenly tokens are routed: of real ones alone."""
    model = tiny(
        "mixtral",
        languages["words"].tokenizer,
        output_router_logits=routed,
        router_aux_loss_coef=1.0,
    )
    losses = []
    for masks in (True, False):
        monkeypatch.setattr(causal_lm, "needs_mask", lambda _, masks=masks: masks)
        task = instruction_tuning(languages["words"], fused_loss=True)
        data = task.encode([pair("Text :", " good"), pair("Text :", " bad awful sad poor worst")])
        losses.append(task.loss(model, data, [0, 1]).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
