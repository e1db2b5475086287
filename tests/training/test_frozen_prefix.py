"""Genomes that adapt but the top layers: what lies below is computed once for each text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.metrics.compute import task_figures
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job, MeasureJob
from coralx.training.adapter_backend import AdapterBackend
from coralx.training.prefix_cache import PrefixCache

GENES = Genes(rank=4, learning_rate=2e-2, dropout=0.1, batch_size=8, layers="top-half")
TASKS = ("sequence-classification", "label-tokens", "sft")


@pytest.fixture(scope="module", params=TASKS)
def config(
    request: pytest.FixtureRequest,
    tiny_search: dict[str, Any],
    causal_config: Callable[[str], dict[str, Any]],
) -> dict[str, Any]:
    if request.param == "sequence-classification":
        return copy.deepcopy(tiny_search)
    return causal_config(request.param)


def prepared(config: dict[str, Any], megabytes: int | None = None) -> AdapterBackend:
    config = {**config, "search_space": {**config["search_space"]}, "runtime": {}}
    config["search_space"]["layers"] = {"choices": ["all", "top-half"]}
    config["runtime"] |= {"prefix_cache_mb": megabytes}
    backend = create("peft")
    assert isinstance(backend, AdapterBackend)
    backend.prepare(parse_config(config, "test"), "fp32", 1, lambda _: None)
    return backend


@pytest.fixture(scope="module")
def backend(config: dict[str, Any]) -> AdapterBackend:
    return prepared(config)


def job(genome: Genome, folder: Path, last: int = 6, **changes: Any) -> Job:
    return Job(
        genome=genome,
        stage=f"to-{last}",
        first_step=0,
        last_step=last,
        horizon=Horizon(80, 2),
        data_fraction=1.0,
        checkpoint=str(folder / genome.id),
        **changes,
    )


def trained(
    backend: AdapterBackend, folder: Path, genes: Genes = GENES
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    result = backend.train(job(Genome("g00-00-aaaa", 0, genes), folder), lambda _: None)
    assert result.notes == ()
    weights = load_file(folder / "g00-00-aaaa" / "adapter_model.safetensors")
    return {k: v for k, v in result.metrics.items() if v is not None}, weights


class Calls:
    """How often layers of the base are called."""

    def __init__(self, backend: AdapterBackend) -> None:
        base = backend._model.get_base_model()
        layers = base.get_submodule(backend._prefix._stack)
        self.counts = [0] * len(layers)
        for place, layer in enumerate(layers):
            forward = layer.self_attn if hasattr(layer, "self_attn") else layer.attention
            forward.register_forward_hook(lambda *_, place=place: self._count(place))

    def _count(self, place: int) -> None:
        self.counts[place] += 1


def test_kept_states_change_nothing_and_save_the_frozen_layers(
    backend: AdapterBackend,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept_figures, kept = trained(backend, tmp_path / "kept")
    calls = Calls(backend)
    again_figures, again = trained(backend, tmp_path / "again")
    assert calls.counts[0] == 0, "every text was known already"
    assert calls.counts[-1] > 0
    assert again_figures == kept_figures
    assert all(torch.equal(again[name], kept[name]) for name in kept)

    # Nothing is kept: states are computed for each text in each step, to the same bits.
    monkeypatch.setattr(PrefixCache, "put", lambda *_: None)
    own_figures, own = trained(prepared(config), tmp_path / "own")
    assert own_figures == kept_figures
    assert all(torch.equal(own[name], kept[name]) for name in kept)

    # The plain loop computes batches, which differs in rounding alone.
    plain_figures, plain = trained(prepared(config, 0), tmp_path / "plain")
    for name in ("eval_loss", "gradient_norm"):
        assert plain_figures[name] == pytest.approx(kept_figures[name], rel=1e-4)
    assert all(torch.allclose(plain[n], kept[n], atol=1e-3) for n in kept)


def test_one_step_has_the_loss_and_the_gradients_of_the_plain_loop(
    backend: AdapterBackend,
) -> None:
    gradients, losses = [], []
    genome = Genome("g00-00-aaaa", 0, GENES)
    material, model = backend._material, backend._model
    with backend._adapter(genome, GENES.shape):
        for name, parameter in model.named_parameters():
            if "lora_B" in name and parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        for is_caching in (True, False):
            model.train()
            for part in backend._prefix.modules:
                part.eval()
            torch.manual_seed(0)
            backend._prefix._is_caching = is_caching
            loss = material.task.loss(model, material.train, list(range(8)))
            loss.backward()
            losses.append(loss.item())
            trained = [p for p in model.parameters() if p.requires_grad]
            gradients.append(torch.cat([p.grad.flatten() for p in trained]))
            model.zero_grad(set_to_none=True)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    scale = gradients[1].abs().max()
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-6 * max(1.0, scale)


def test_layers_are_adapted_from_the_top_and_plain_peft_agrees(
    backend: AdapterBackend, config: dict[str, Any], tmp_path: Path
) -> None:
    genes = replace(GENES, layers=1)  # of two, as top-half
    figures, weights = trained(backend, tmp_path, genes)
    assert figures == trained(backend, tmp_path / "half")[0]
    adapted = [name for name in weights if ".lora_A." in name]
    assert adapted
    assert all(".1." in name for name in adapted)
    everywhere = trained(backend, tmp_path / "all", replace(GENES, layers="all"))[0]
    assert figures["trainable_parameters"] < everywhere["trainable_parameters"]

    measured = backend.measure(
        MeasureJob(Genome("g00-00-aaaa", 0, genes), str(tmp_path / "g00-00-aaaa"))
    )
    alone = PeftModel.from_pretrained(plain_base(config), tmp_path / "g00-00-aaaa").eval()
    part = backend._material.parts[0]
    rows = part.splits["test"].rows
    with torch.no_grad():
        scores = part.task.scores(alone, rows, list(range(len(rows.ids))))
    loss = task_figures(part.task.by_row(scores, rows))["eval_loss"]
    assert measured.test["eval_loss"].value == pytest.approx(loss, abs=1e-3)
    described = json.loads((tmp_path / "g00-00-aaaa" / "adapter_config.json").read_text())
    assert isinstance(described["target_modules"], list)

    child = Genome("g01-00-bbbb", 1, GENES, inherits="g00-00-aaaa")
    parent = str(tmp_path / "all" / "g00-00-aaaa")
    born = backend.train(job(child, tmp_path, 1, inherit_from=parent), lambda _: None).inheritance
    assert born is not None
    assert born.dropped
    assert born.added == ()
    assert 0 < born.error < 1


def plain_base(config: dict[str, Any]) -> Any:
    """The base as transformers loads it."""
    path = config["model"]["base"]
    if "task" in config["model"]:
        return AutoModelForCausalLM.from_pretrained(path)
    return AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)


def test_costs_are_measured_with_all_layers_computed(backend: AdapterBackend) -> None:
    calls = Calls(backend)
    genome = Genome("g00-00-cccc", 0, GENES)
    rows = backend._material.parts[0].splits["validation"].rows
    with backend._adapter(genome, GENES.shape):
        backend._evaluation._scored(backend._material.parts[0], rows, lambda: None)
        calls.counts[0] = 0
        backend._evaluation._measured = ["latency_ms"]
        backend._evaluation._measurements(lambda: None)
    backend._evaluation._measured = []
    assert calls.counts[0] > 0
