"""How much memory a genome takes, and what the search does with one that does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.backends.memory_estimate import (
    adapter_parameters,
    least_bytes,
    likely_bytes,
    memory_warnings,
    why_too_large,
)
from coralx.config import Config
from coralx.engine.engine import Engine
from coralx.errors import ConfigError
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import GenerationStarted, GenomeFailed, StageCompleted
from coralx.records.genomes import ALL_LINEAR, Genes, Genome
from coralx.records.run_facts import NO_MEMORY, Facts, Footprint
from coralx.records.serialization import from_json, to_json
from coralx.storage.ledger import Ledger
from coralx.text import GIB
from tests.support.factories import make_config, make_facts, simulated_config

SMALL = Footprint(
    base_parameters=1000,
    base_bytes=2000,
    hidden_size=10,
    intermediate_size=20,
    layers=3,
    linear=(
        ("layers.0.q_proj", 10, 10),
        ("layers.0.up_proj", 10, 20),
        ("layers.0.my_up_proj", 9, 9),
    ),
    head_parameters=7,
    activation_bytes=2,
)


def test_an_adapter_counts_rank_times_inputs_and_outputs() -> None:
    assert adapter_parameters(SMALL, Genes(rank=2, target_modules=("q_proj",))) == 2 * 20 + 7
    assert adapter_parameters(SMALL, Genes(rank=2, target_modules=("up_proj",))) == 2 * 30 + 7
    assert adapter_parameters(SMALL, Genes(rank=2)) == 2 * (20 + 30 + 18) + 7
    dora = Genes(rank=2, target_modules=("up_proj",), use_dora=True)
    assert adapter_parameters(SMALL, dora) == 2 * 30 + 20 + 7


def test_memory_is_base_adapter_activations_and_logits() -> None:
    genes = Genes(rank=2, batch_size=4)
    least = least_bytes(SMALL, genes)
    assert least == 2000 + 16 * adapter_parameters(SMALL, genes)
    layer = 8 * 10 + 4 * 20
    assert likely_bytes(SMALL, genes, 5) == least + 4 * 5 * 2 * 3 * layer
    checkpointed = replace(SMALL, checkpointing=True)
    assert likely_bytes(checkpointed, genes, 5) == least + 4 * 5 * 2 * (3 * 10 + layer)
    with_logits = replace(SMALL, logits_per_token=100)
    assert likely_bytes(with_logits, genes, 5) == likely_bytes(SMALL, genes, 5) + 4 * 5 * 100 * 10


def test_what_does_not_fit_is_told_with_figures_and_a_way_out() -> None:
    device = replace(SMALL, base_bytes=3 * GIB, device_bytes=2 * GIB)
    reason = why_too_large(device, Genes())
    assert reason is not None
    for part in ("3.0 GiB", "2.0 GiB", "smaller ranks", "runtime.quantization"):
        assert part in reason
    assert why_too_large(replace(device, device_bytes=0), Genes()) is None
    assert why_too_large(None, Genes()) is None


def test_what_may_not_fit_is_warned_about() -> None:
    device = replace(SMALL, base_bytes=GIB, device_bytes=2 * GIB)
    genomes = [
        Genome("small", 0, Genes(batch_size=1)),
        Genome("wide", 0, Genes(batch_size=10**6)),
        Genome("huge", 0, Genes(rank=10**6)),
    ]
    (warning,) = memory_warnings(device, genomes, 512)
    assert warning.startswith("wide may run out of memory")
    assert memory_warnings(replace(device, device_bytes=0), genomes, 512) == ()


def test_a_footprint_survives_the_ledger() -> None:
    facts = replace(make_facts(), footprint=SMALL)
    assert from_json(Facts, to_json(facts)) == facts


# -- in a search -----------------------------------------------------------------------------------


def search(config: Config, footprint: Footprint) -> list[Any]:
    """The events of a simulated search whose worker reports such a footprint."""
    executor = InProcessExecutor("simulated")
    facts = executor.start(config, None, lambda signal: None)  # noqa: ARG005
    ledger = Ledger()
    Engine(config, replace(facts, footprint=footprint), executor, ledger, None).search()
    return list(ledger)


def test_a_genome_that_cannot_fit_is_never_trained() -> None:
    config = simulated_config(
        search_space={"rank": {"choices": [2, 64]}},
        evolution={"population_size": 8, "generations": 2},
    )
    limit = (
        least_bytes(SMALL, Genes(rank=2)) + least_bytes(SMALL, Genes(rank=64))
    ) // 2  # holds rank 2, not 64
    events = search(config, replace(SMALL, device_bytes=limit))
    genomes = [g for e in events if isinstance(e, GenerationStarted) for g in e.genomes]
    failed = [event for event in events if isinstance(event, GenomeFailed)]
    trained = {e.result.genome for e in events if isinstance(e, StageCompleted)}
    large = {genome.id for genome in genomes if genome.genes.rank == 64}
    assert large
    assert {event.genome for event in failed} == large
    assert len(failed) == len(large)
    assert trained == {genome.id for genome in genomes} - large
    assert all("at least" in event.reason for event in failed)


def test_a_genome_that_may_not_fit_is_trained_with_a_warning() -> None:
    config = simulated_config(
        search_space={"rank": {"choices": [2, 4]}}, evolution={"generations": 1}
    )
    limit = least_bytes(SMALL, Genes(rank=4)) + 1
    events = search(config, replace(SMALL, device_bytes=limit))
    (first,) = (event for event in events if isinstance(event, GenerationStarted))
    assert any("may run out of memory" in warning for warning in first.warnings)
    assert not [event for event in events if isinstance(event, GenomeFailed)]
    assert {e.result.genome for e in events if isinstance(e, StageCompleted)} == {
        genome.id for genome in first.genomes
    }


# -- of real models --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from coralx.training.tiny_model import write_model

    folder = tmp_path_factory.mktemp("specimen") / "model"
    write_model(folder)
    return folder


def causal(base: Path, **sections: Any) -> Config:
    return make_config(model={"base": str(base), "task": "label-tokens"}, **sections)


@pytest.mark.parametrize(
    "genes",
    [
        Genes(rank=3),
        Genes(rank=8, target_modules=("q_proj", "v_proj")),
        Genes(rank=4, target_modules=("down_proj",), use_dora=True),
        Genes(rank=2, target_modules=("mlp.up_proj",), use_rslora=True),
    ],
)
def test_adapters_of_a_llama_count_as_in_peft(genes: Genes, llama: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from coralx.training.footprint import footprint_of

    model = AutoModelForCausalLM.from_pretrained(llama, local_files_only=True)
    config = causal(llama)
    footprint = footprint_of(config, model, (), NO_MEMORY, precision="fp32")
    everywhere = genes.target_modules == ALL_LINEAR
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=genes.rank,
            target_modules=ALL_LINEAR if everywhere else list(genes.target_modules),
            use_rslora=genes.use_rslora,
            use_dora=genes.use_dora,
        ),
    )
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert adapter_parameters(footprint, genes) == trained


def test_a_described_base_has_the_sizes_of_the_loaded_one(llama: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from coralx.training.footprint import footprint_of, footprint_without_weights

    cpu = torch.device("cpu")
    config = causal(llama)
    model = AutoModelForCausalLM.from_pretrained(llama, local_files_only=True)
    loaded = footprint_of(config, model, (), NO_MEMORY, precision="fp32")
    assert footprint_without_weights(config, cpu) == loaded
    assert loaded.base_bytes >= 4 * loaded.base_parameters
    assert (loaded.hidden_size, loaded.intermediate_size, loaded.layers) == (64, 160, 2)
    assert len(loaded.linear) == 2 * 7


def test_a_gpu_holds_language_models_in_less(llama: Path) -> None:
    import torch

    from coralx.training.footprint import footprint_without_weights

    gpu = torch.device("cuda")
    held = footprint_without_weights(causal(llama), gpu)
    assert held.checkpointing
    assert held.base_bytes == pytest.approx(2 * held.base_parameters, rel=0.01)
    quantized = footprint_without_weights(causal(llama, runtime={"quantization": "4bit"}), gpu)
    weights = sum(inputs * outputs for _, inputs, outputs in held.linear)
    saved = held.base_bytes - quantized.base_bytes
    assert 1.4 * weights < saved < 1.5 * weights
    assert quantized.base_parameters == held.base_parameters


def test_an_encoders_head_is_trained_with_every_adapter(tiny_base: Path) -> None:
    import torch

    from coralx.training.footprint import footprint_without_weights

    config = make_config(
        model={"base": str(tiny_base), "max_length": 16},
        data={"labels": ["a", "b", "c"]},
        search_space={"target_modules": {"choices": [["query"]]}},
    )
    found = footprint_without_weights(config, torch.device("cpu"))
    assert found.head_parameters == 3 * 32 + 3
    assert found.logits_per_token == 0
    assert not any(name.startswith("classifier") for name, _, _ in found.linear)


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from coralx.training.footprint import footprint_without_weights

    with pytest.raises(ConfigError, match=r"model\.base"):
        footprint_without_weights(causal(tmp_path), torch.device("cpu"))
