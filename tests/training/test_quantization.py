"""Adapters on a base in 4 or 8 bits, trained by PEFT on a CPU with bitsandbytes' own kernels."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import cextension

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.errors import ConfigError, SetupError
from coralx.metrics import compute
from coralx.records.derivations import Derivation
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import DeriveJob, Horizon, Job, MeasureJob
from coralx.records.run_facts import Facts
from coralx.training import base_model, quantization
from coralx.training.footprint import footprint_without_weights
from coralx.training.inference import predict
from coralx.training.quantization import check_quantization
from tests.support.paths import ROOT

SNIPPETS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text("utf-8"), re.M | re.S
)
CPU = torch.device("cpu")
GENES = Genes(rank=4, learning_rate=2e-2, dropout=0.1, batch_size=8)
GENOME = Genome("g00-00-aaaa", 0, GENES)

Configure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def configure(causal_config: Callable[[str], dict[str, Any]]) -> Configure:
    def make(bits: str, **runtime: Any) -> dict[str, Any]:
        config = causal_config("label-tokens")
        config["runtime"] |= {"quantization": bits, **runtime}
        return config

    return make


def prepared(config: dict[str, Any]) -> tuple[Any, Facts]:
    backend: Any = create("peft")
    facts = backend.prepare(parse_config(config, "test"), None, 1, lambda _: None)
    return backend, facts


@pytest.fixture(scope="module", params=["4bit", "8bit"])
def bits(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def worker(configure: Configure, bits: str) -> tuple[Any, Facts]:
    """A backend that has loaded such a base, and what it says of it."""
    return prepared(configure(bits))


def trained(backend: Any, folder: Path, first: int, last: int, **changes: Any) -> Any:
    job = Job(
        GENOME,
        f"to-{last}",
        first,
        last,
        Horizon(40, 2),
        1.0,
        str(folder / f"to-{last}"),
        **changes,
    )
    return backend.train(job, lambda _: None)


def files(checkpoint: Path) -> dict[str, bytes]:
    kept = ("adapter_model.safetensors", "optimizer.safetensors")
    return {name: (checkpoint / name).read_bytes() for name in kept}


def gradients(backend: Any) -> dict[str, torch.Tensor]:
    """Those of one batch, by the names of the active adapter's parameters."""
    model, material = backend._model, backend._material
    model.zero_grad()
    material.task.loss(model, material.train, [0, 1, 2, 3]).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_only_what_lora_adapts_is_stored_in_few_bits(worker: tuple[Any, Facts], bits: str) -> None:
    kinds = {"4bit": "Params4bit", "8bit": "Int8Params"}
    layers = dict(worker[0]._base.model.named_modules())
    for name, _, _ in worker[1].footprint.linear:
        assert type(layers[f"{name}.base_layer"].weight).__name__ == kinds[bits]
    assert layers["lm_head"].weight.dtype == torch.float32
    assert worker[0]._base.model.get_input_embeddings().weight.dtype == torch.float32


def test_the_footprint_is_that_of_what_is_stored(
    worker: tuple[Any, Facts], configure: Configure, bits: str
) -> None:
    loaded = worker[1].footprint
    described = footprint_without_weights(parse_config(configure(bits), "test"), CPU)
    assert described.base_parameters == loaded.base_parameters
    assert described.linear == loaded.linear
    assert described.base_bytes == pytest.approx(loaded.base_bytes, rel=0.05)
    assert loaded.base_bytes < 0.5 * 4 * loaded.base_parameters


def test_a_base_has_a_gradient_after_scoring_as_before(worker: tuple[Any, Facts]) -> None:
    """On some CPUs, bitsandbytes turned the base into one without, at its first use for scoring."""
    backend = worker[0]
    with backend._adapter(GENOME, GENES.shape):
        for name, parameter in backend._model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.1)
        backend._model.train()
        part = backend._material.parts[0]
        torch.manual_seed(0)
        before = gradients(backend)
        predict(backend._model, part.task, part.splits["validation"].rows, backend._scoring)
        backend._model.train()
        torch.manual_seed(0)
        after = gradients(backend)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(getattr(m, "support_avx512bf16_for_cpu", 0) for m in backend._model.modules())


def test_a_stage_that_is_cut_ends_as_one_that_was_not(
    worker: tuple[Any, Facts], configure: Configure, bits: str, tmp_path: Path
) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    trained(worker[0], cut, 0, 7)
    resumed = trained(worker[0], cut, 7, 40, resume_from=str(cut / "to-7"))
    fresh = trained(prepared(configure(bits))[0], whole, 0, 40)
    assert files(cut / "to-40") == files(whole / "to-40")
    assert resumed.metrics["eval_loss"] == fresh.metrics["eval_loss"]
    untuned = worker[0].measure(MeasureJob(None, None))
    assert resumed.metrics["eval_loss"] < untuned.validation["eval_loss"] - 0.05


def test_plain_peft_on_the_same_base_gives_the_figures_that_are_reported(
    configure: Configure, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = configure("4bit")
    backend, _ = prepared(config)
    figures = {"to-20": trained(backend, tmp_path, 0, 20).metrics}
    derivation = Derivation("truncate", (GENOME.id,), rank=2)
    genome = Genome("truncated", 1, GENES, derived=derivation)
    sources = (str(tmp_path / "to-20"),)
    derived = backend.derive(DeriveJob(genome, "to-20", sources, 20, str(tmp_path / "derived")))
    figures["derived"] = derived.result.metrics
    loading = next(block for block in SNIPPETS if "BitsAndBytesConfig" in block)
    part = backend._material.parts[0]
    rows = part.splits["validation"].rows
    for folder, reported in figures.items():
        names: dict[str, Any] = {"base": config["model"]["base"], "torch": torch}
        names["AutoModelForCausalLM"] = AutoModelForCausalLM
        exec(loading, names)
        model = PeftModel.from_pretrained(names["model"], str(tmp_path / folder))
        scores = part.task.by_row(predict(model, part.task, rows, backend._scoring), rows)
        for name, value in compute.task_figures(scores).items():
            if name in ("auroc", "eval_loss", "accuracy"):
                assert value == pytest.approx(reported[name], abs=1e-5)


def test_autocast_trains_such_a_base(configure: Configure, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        config = configure("4bit")
        config["training"]["precision"] = precision
        result = trained(prepared(config)[0], tmp_path / precision, 0, 10)
        losses.append(result.metrics["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


# -- where it cannot be ----------------------------------------------------------------------------


def refused(config: dict[str, Any], device: str = "cpu", backend: str = "peft") -> Any:
    with pytest.raises((ConfigError, SetupError)) as error:
        check_quantization(parse_config(config, "test"), torch.device(device), backend)
    return error.value


def test_what_a_device_or_a_backend_cannot_do_is_refused(configure: Configure) -> None:
    error = refused(configure("4bit"), "mps")
    assert "4bit needs a CUDA GPU or a CPU; this worker trains on mps" in error.message
    error = refused(configure("4bit"), backend="unsloth")
    assert "runtime.quantization: 4bit needs a CUDA GPU with Unsloth" in error.message
    assert "runtime.backend: peft" in error.hint
    config = configure("8bit")
    config["search_space"]["use_dora"] = {"choices": [False, True]}
    assert "8bit cannot be trained with DoRA on a CPU" in refused(config).message
    check_quantization(parse_config(config, "test"), torch.device("cuda"), "peft")
    check_quantization(parse_config(configure("none"), "test"), torch.device("mps"), "peft")


def test_what_the_machine_lacks_is_named_with_the_way_out(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(quantization, "is_installed", lambda _: False)
        for device in ("cpu", "cuda"):
            error = refused(configure("4bit"), device)
            assert "needs bitsandbytes, which is not installed" in error.message
            assert "pip install 'coralx[quantization]'" in error.hint
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "x86_64")
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
        assert "has no AVX2" in refused(configure("4bit")).message
        patch.setattr(platform, "machine", lambda: "aarch64")  # has others
        check_quantization(parse_config(configure("4bit"), "test"), CPU, "peft")
    missing = cextension.ErrorHandlerMockBNBNativeLibrary("")
    monkeypatch.setattr(cextension, "lib", missing)
    error = refused(configure("4bit"))
    assert isinstance(error, SetupError)
    assert "without its library for this system" in error.message


# -- where weights go ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "bits", "placed"),
    [
        ("cuda", "none", {"": 0}),
        ("cuda:1", "none", {"": 1}),
        ("cuda:1", "4bit", {"": 1}),
        ("cpu", "none", None),
        ("cpu", "4bit", {"": "cpu"}),
        ("mps", "none", None),
    ],
)
def test_weights_go_straight_to_the_gpu(
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    bits: str,
    placed: dict[str, Any] | None,
) -> None:
    """A base in the host's memory first takes as much of it as it has weights."""
    given = how_it_is_read(configure(bits), device, monkeypatch, "AutoModelForCausalLM")
    assert given.get("device_map") == placed


def test_a_classifiers_head_is_drawn_on_the_cpu(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the base has no weights for: a GPU would draw another."""
    given = how_it_is_read(tiny_config, "cuda", monkeypatch, "AutoModelForSequenceClassification")
    assert "device_map" not in given


def how_it_is_read(
    config: dict[str, Any], device: str, patch: pytest.MonkeyPatch, auto: str
) -> dict[str, Any]:
    """What `from_pretrained` of the class `auto` is called with for such a device."""
    given: dict[str, Any] = {}

    def stand_in(path: str, **options: Any) -> None:
        given.update(options, path=path)
        raise ValueError("no device here")

    patch.setattr(getattr(base_model, auto), "from_pretrained", stand_in)
    with pytest.raises(ConfigError, match="no device here"):
        base_model.load(
            parse_config(config, "test"), ["a", "b"], torch.device(device), torch.float32, print
        )
    return given
