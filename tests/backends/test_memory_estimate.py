"""How much memory a genome takes, and what the search does with one that does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.backends.memory_estimate import (
    activation_bytes,
    adapter_parameters,
    host_pool_bytes,
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
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Facts, Footprint
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
    # Of each of 3 layers: norms in fp32, attention, MLP; of each adapted layer its input.
    held = 3 * (4 * 2 * 10 + 2 * (4 * 10 + 3 * 20)) + 2 * (10 + 10 + 9)
    assert likely_bytes(SMALL, genes, 5) == least + 4 * 5 * held
    checkpointed = replace(SMALL, checkpointing=True)
    assert likely_bytes(checkpointed, genes, 5) == least + 4 * 5 * (2 * 3 * 10 + held // 3)
    with_logits = replace(SMALL, logits_per_token=100)
    assert likely_bytes(with_logits, genes, 5) == likely_bytes(SMALL, genes, 5) + 4 * 5 * 100 * 10


def test_dropout_holds_what_it_drops_and_dora_its_outputs() -> None:
    plain = Genes(rank=2, batch_size=1, target_modules=("up_proj",))
    dropping, dora = replace(plain, dropout=0.1), replace(plain, use_dora=True)
    assert activation_bytes(SMALL, dropping) - activation_bytes(SMALL, plain) == 10
    assert activation_bytes(SMALL, dora) - activation_bytes(SMALL, plain) == 2 * 2 * (10 + 20)


def test_layers_below_the_adapted_ones_hold_nothing_and_count_nothing() -> None:
    names = [f"layers.{n}.{name}" for n in range(3) for name in ("q_proj", "up_proj")]
    base = replace(SMALL, linear=tuple((name, 10, 10) for name in names))
    everywhere, top = Genes(rank=2), Genes(rank=2, layers=1)
    assert adapter_parameters(base, everywhere) == 6 * 2 * 20 + 7
    assert adapter_parameters(base, top) == 2 * 2 * 20 + 7
    assert activation_bytes(base, top) * 3 == activation_bytes(base, everywhere)
    checkpointed = replace(base, checkpointing=True)
    assert activation_bytes(checkpointed, top) == activation_bytes(checkpointed, everywhere)


def test_unsloths_kernels_hold_less_where_they_are_used() -> None:
    fused = replace(SMALL, fused=True)
    whole = Genes(target_modules="all-linear")
    assert activation_bytes(fused, whole) == 3 * 2 * (8 * 10 + 2 * 20)
    for genes in (replace(whole, use_dora=True), Genes(target_modules=("q_proj",))):
        assert activation_bytes(fused, genes) == activation_bytes(SMALL, genes)


def test_unsloth_keeps_the_inputs_of_long_texts_in_the_hosts_memory() -> None:
    llama8b = replace(SMALL, hidden_size=4096, layers=32, checkpointing=True, fused=True)
    genes = Genes(batch_size=64)
    most = 64 * 512 * 4096 * 2 * 32  # 8.6 GB
    assert host_pool_bytes(llama8b, genes, 512, 512) == most
    assert host_pool_bytes(llama8b, replace(genes, batch_size=48), 512, 512) == most
    assert host_pool_bytes(llama8b, genes, 511, 511) == 0
    assert host_pool_bytes(llama8b, genes, 511, 527) == most  # answers make texts longer
    assert host_pool_bytes(replace(llama8b, hidden_size=32), genes, 512, 512) == 0  # 2 MiB a layer
    assert host_pool_bytes(replace(llama8b, checkpointing=False), genes, 512, 512) == 0
    assert host_pool_bytes(replace(llama8b, fused=False), genes, 512, 512) == 0


def test_what_does_not_fit_is_told_with_figures_and_a_way_out() -> None:
    device = replace(SMALL, base_bytes=3 * GIB, device_bytes=2 * GIB)
    reason = why_too_large(device, Genes())
    assert reason is not None
    for part in ("3.0 GiB", "2.0 GiB", "smaller ranks", "runtime.quantization"):
        assert part in reason
    assert why_too_large(replace(device, device_bytes=0), Genes()) is None
    shared = why_too_large(replace(device, sharing=2), Genes())
    assert shared is not None
    assert "each of 2 workers has 2.0 GiB of the device" in shared
    assert "fewer workers a GPU" in shared
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


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "genes",
    [
        Genes(rank=2),
        Genes(rank=2, target_modules=("q_proj", "v_proj")),
        Genes(rank=2, use_dora=True),
    ],
)
def test_activations_are_as_many_as_autograd_keeps(genes: Genes, dtype: str, llama: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from coralx.training.footprint import footprint_of

    held_in = getattr(torch, dtype)
    model = AutoModelForCausalLM.from_pretrained(llama, local_files_only=True, dtype=held_in)
    precision = "bf16" if dtype == "bfloat16" else "fp32"
    footprint = footprint_of(causal(llama), model, (), NO_MEMORY, precision=precision)
    targets = genes.target_modules
    adapted = get_peft_model(
        model.requires_grad_(False),
        LoraConfig(
            r=genes.rank,
            target_modules=targets if isinstance(targets, str) else list(targets),
            use_dora=genes.use_dora,
        ),
    )
    weights = {t.untyped_storage().data_ptr() for t in (*adapted.parameters(), *adapted.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor
        return tensor

    texts = torch.zeros((2, 64), dtype=torch.long)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        adapted.train()(input_ids=texts, logits_to_keep=1)
    held = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / texts.numel()
    assert 0.8 * held <= activation_bytes(footprint, genes) <= 1.4 * held


def test_a_gpu_holds_language_models_in_less(llama: Path) -> None:
    import torch

    from coralx.training.footprint import footprint_without_weights

    gpu = torch.device("cuda")
    held = footprint_without_weights(causal(llama), gpu)
    assert held.checkpointing  # nothing is known of its memory
    roomy = DeviceMemory(80 * GIB, 40 * GIB, sharing=2)
    known = footprint_without_weights(causal(llama), gpu, roomy)
    assert known == replace(held, checkpointing=False, device_bytes=40 * GIB, sharing=2)
    assert held.base_bytes == pytest.approx(2 * held.base_parameters, rel=0.01)
    quantized = footprint_without_weights(causal(llama, runtime={"quantization": "4bit"}), gpu)
    weights = sum(inputs * outputs for _, inputs, outputs in held.linear)
    saved = held.base_bytes - quantized.base_bytes
    assert 1.4 * weights < saved < 1.5 * weights
    assert quantized.base_parameters == held.base_parameters


@pytest.mark.parametrize(("in_bf16", "size"), [(True, 2), (False, 4)])
def test_a_base_that_overflows_in_fp16_takes_more_on_older_gpus(
    in_bf16: bool, size: int, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held there in float32, as a run would."""
    import torch

    from coralx.training import footprint

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: in_bf16)
    monkeypatch.setattr(footprint, "overflows_in_half", lambda kind: kind == "llama")
    held = footprint.footprint_without_weights(causal(llama), torch.device("cuda"))
    assert held.activation_bytes == size
    assert held.base_bytes == pytest.approx(size * held.base_parameters, rel=0.01)


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
