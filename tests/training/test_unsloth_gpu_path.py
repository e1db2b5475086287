"""Unsloth's path for GPUs, its fused kernels included, driven on the CPU beside PEFT in bf16.

What makes that possible stands in tests/support/unsloth_gpu_path.py. No speed and no memory can be
seen so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.support.paths import SUPPORT

torch = pytest.importorskip("torch")

NEEDED = {"unsloth": "unsloth", "triton": "triton", "bitsandbytes": "bitsandbytes", "PIL": "pillow"}
MISSING = [package for module, package in NEEDED.items() if find_spec(module) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux"),
    pytest.mark.skipif(
        torch.version.cuda is not None, reason="this torch can drive a GPU; none is to be faked"
    ),
    pytest.mark.skipif(
        bool(MISSING), reason=f"pip install --no-deps {' '.join(MISSING)}, then this can run"
    ),
]

LAYERS, STEPS = 2, 4
EVERY = LAYERS * STEPS
LOSSES, NORMS = 2e-2, 5e-2
"""Relative differences between two ways to round bf16; seen were 1.3e-2 and 1.6e-2."""

FUSED = {
    "whole": {"qkv", "o", "mlp"},
    "dropout": {"qkv", "o", "mlp"},
    "rslora": {"qkv", "o", "mlp"},
    "dora": set(),
    "qkv": {"qkv"},
    "q+v": set(),
    "o": {"o"},
    "mlp": {"mlp"},
    "gate+up": set(),
    "again": {"qkv", "o", "mlp"},
}
UNFUSED = {
    "dora": "DoRA",
    "q+v": "a part of q_proj+k_proj+v_proj, without k_proj",
    "gate+up": "a part of gate_proj+up_proj+down_proj, without down_proj",
}
TUNED = ["sft", "sft with dropout", "sft with dropout, checkpointed"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was seen of PEFT, and then of Unsloth, each in a process of its own."""
    folder = tmp_path_factory.mktemp("path")
    script = SUPPORT / "unsloth_gpu_path.py"
    found = {}
    for backend in ("peft", "unsloth"):
        command = [sys.executable, str(script), backend, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr
        found[backend] = json.loads((folder / f"{backend}.json").read_text())
    return found


def runs(seen: dict[str, Any], backend: str, name: str) -> dict[str, Any]:
    if name == "granite":
        return seen[backend][name]
    return seen[backend]["genomes" if name in FUSED else "tuned"][name]


def test_the_template_has_fused_kernels_installed_on_every_layer(seen: dict[str, Any]) -> None:
    assert seen["unsloth"]["kernels"] == dict.fromkeys(("layers", "qkv", "o", "mlp"), LAYERS)


@pytest.mark.parametrize("name", FUSED)
def test_genomes_are_trained_by_the_kernels_that_fit_them(seen: dict[str, Any], name: str) -> None:
    assert runs(seen, "unsloth", name)["calls"] == dict.fromkeys(FUSED[name], EVERY)


@pytest.mark.parametrize("name", FUSED)
def test_genomes_that_fall_back_are_remarked_on_and_no_others(
    seen: dict[str, Any], name: str
) -> None:
    notes = runs(seen, "unsloth", name)["notes"]
    assert len(notes) == (name in UNFUSED)
    assert UNFUSED.get(name, "") in "".join(notes)


@pytest.mark.parametrize("name", [*FUSED, *TUNED, "granite"])
def test_losses_and_gradients_are_those_of_peft(seen: dict[str, Any], name: str) -> None:
    ours, theirs = (runs(seen, backend, name) for backend in ("unsloth", "peft"))
    assert len(ours["losses"]) == STEPS
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=LOSSES)
    assert ours["norms"] == pytest.approx(theirs["norms"], rel=NORMS)
    assert ours["metrics"]["eval_loss"] == pytest.approx(theirs["metrics"]["eval_loss"], rel=LOSSES)


@pytest.mark.parametrize("figure", ["eval_loss", "auroc", "calibration"])
def test_the_untuned_base_is_measured_as_by_peft(seen: dict[str, Any], figure: str) -> None:
    ours, theirs = (seen[backend]["untuned"][figure] for backend in ("unsloth", "peft"))
    assert ours == pytest.approx(theirs, rel=LOSSES)


def test_an_adapter_that_peft_trained_is_measured_as_by_peft(seen: dict[str, Any]) -> None:
    theirs = runs(seen, "peft", "whole")["metrics"]["eval_loss"]
    assert seen["unsloth"]["theirs"]["eval_loss"] == pytest.approx(theirs, rel=LOSSES)


def test_a_genomes_own_dropout_acts_on_the_fused_path(seen: dict[str, Any]) -> None:
    without, dropped = (runs(seen, "unsloth", name)["losses"] for name in ("whole", "dropout"))
    assert dropped[0] == without[0]  # B is zero before the first step
    assert dropped[1] != pytest.approx(without[1], rel=LOSSES)


def test_a_genome_trains_the_same_after_others_came_and_went(seen: dict[str, Any]) -> None:
    first, again = (runs(seen, "unsloth", name) for name in ("whole", "again"))
    assert (first["losses"], first["metrics"]) == (again["losses"], again["metrics"])


def test_recomputing_activations_draws_the_same_dropout(seen: dict[str, Any]) -> None:
    plain, recomputed = (runs(seen, "unsloth", name) for name in TUNED[1:])
    assert recomputed["losses"] == plain["losses"]
    assert recomputed["norms"] == pytest.approx(plain["norms"], rel=1e-3)


def test_checkpointing_is_unsloths_own(seen: dict[str, Any]) -> None:
    used = seen["unsloth"]["checkpoint"]
    assert used["sft with dropout"] == "CheckpointFunction"
    assert used["sft with dropout, checkpointed"] == "UnslothCheckpointFunction"


def test_a_model_without_fused_kernels_is_remarked_on_as_a_whole(seen: dict[str, Any]) -> None:
    granite = seen["unsloth"]["granite"]
    assert granite["calls"] == {}
    assert granite["notes"] == []
    (remark,) = granite["remarks"]
    assert "no fused kernels for granite models" in remark


def test_every_adapter_has_the_same_tensors_on_both(seen: dict[str, Any]) -> None:
    for name in FUSED:
        ours, theirs = (runs(seen, backend, name)["metrics"] for backend in ("unsloth", "peft"))
        for figure in ("trainable_parameters", "adapter_bytes"):
            assert ours[figure] == theirs[figure], name
