"""Unsloth's path for GPUs, its fused kernels included, driven on the CPU beside PEFT in 16 bits.

What makes that possible stands in tests/support/faked_gpu.py. No speed and no memory can be seen
so. `make test-gpu-path` runs this in an environment with the packages that it needs; nothing here
is ever skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT, SUPPORT

pytestmark = pytest.mark.gpu_path

NEEDED = ("unsloth", "unsloth_zoo", "trl", "triton", "bitsandbytes", "PIL")
PARTS = (("kinds", "quantized"), ("tuning", "recomputing", "halves", "classes"))
"""What each of Unsloth's processes is to do: they take about as long."""
SECONDS = 1800

LAYERS, STEPS = 2, 3
EVERY = LAYERS * STEPS
LOSSES, NORMS = 2e-2, 5e-2
"""Relative differences between two ways to round bf16; seen were 1.7e-2 and 2.2e-2."""
HALF_STEPS = 6
"""Of stages in float16, of which the first ones may be skipped until the losses' scale fits."""

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
FEW = ("whole", "q+v", "again")
ANSWERING = ("whole", "dora", "qkv", "mlp")
RUNS = [
    *(("kinds", name) for name in [*FUSED, "granite"]),
    *(("tuning", name) for name in ("whole", "dropout", "qkv", "mlp")),
    ("recomputing", "dropout"),
    *((part, name) for part in ("quantized", "classes") for name in FEW),
]

Seen = dict[str, dict[str, Any]]


def processes(folder: Path, *told: Sequence[str]) -> None:
    """Run the script with each of these arguments at once, and wait until all have succeeded."""
    script = str(SUPPORT / "unsloth_gpu_path.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    logs = [folder / f"{'-'.join(arguments)}.log" for arguments in told]
    running = []
    for log, (backend, *parts) in zip(logs, told, strict=True):
        with log.open("w") as file:
            command = [sys.executable, script, backend, str(folder), *parts]
            running.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment))
    try:
        codes = [process.wait(SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(codes), "\n".join(log.read_text() for log in logs)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What was seen of PEFT, and then of Unsloth, by part."""
    missing = ", ".join(name for name in NEEDED if find_spec(name) is None)
    assert not missing, f"not installed: {missing}; make test-gpu-path installs all that is needed"
    folder = tmp_path_factory.mktemp("path")
    parts = [part for process in PARTS for part in process]
    processes(folder, ("peft", *parts))
    processes(folder, *(("unsloth", *process) for process in PARTS))
    return {
        backend: {
            part: json.loads((folder / f"{backend}-{part}.json").read_text()) for part in parts
        }
        for backend in ("peft", "unsloth")
    }


@pytest.fixture(scope="module")
def unsloth(seen: dict[str, Seen]) -> Seen:
    return seen["unsloth"]


# -- training by every kind of adapter -------------------------------------------------------------


def test_the_template_has_fused_kernels_installed_on_every_layer(unsloth: Seen) -> None:
    expected = dict.fromkeys(("layers", "qkv", "o", "mlp"), LAYERS)
    assert unsloth["kinds"]["kernels"] == expected


@pytest.mark.parametrize("name", FUSED)
def test_genomes_are_trained_by_the_kernels_that_fit_them(unsloth: Seen, name: str) -> None:
    assert unsloth["kinds"][name]["calls"] == dict.fromkeys(FUSED[name], EVERY)


@pytest.mark.parametrize("name", FUSED)
def test_genomes_that_fall_back_are_remarked_on_and_no_others(unsloth: Seen, name: str) -> None:
    notes = unsloth["kinds"][name]["notes"]
    assert len(notes) == (name in UNFUSED)
    assert UNFUSED.get(name, "") in "".join(notes)


@pytest.mark.parametrize(("part", "name"), RUNS)
def test_losses_and_gradients_are_those_of_peft(
    seen: dict[str, Seen], part: str, name: str
) -> None:
    ours, theirs = (seen[backend][part][name] for backend in ("unsloth", "peft"))
    assert len(ours["losses"]) == STEPS
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=LOSSES)
    assert ours["norms"] == pytest.approx(theirs["norms"], rel=NORMS)
    assert ours["metrics"]["eval_loss"] == pytest.approx(theirs["metrics"]["eval_loss"], rel=LOSSES)


@pytest.mark.parametrize("figure", ["eval_loss", "auroc", "calibration"])
def test_the_untuned_base_is_measured_as_by_peft(seen: dict[str, Seen], figure: str) -> None:
    ours, theirs = (seen[backend]["kinds"]["untuned"][figure] for backend in ("unsloth", "peft"))
    assert ours == pytest.approx(theirs, rel=LOSSES)


def test_an_adapter_that_peft_trained_is_measured_as_by_peft(seen: dict[str, Seen]) -> None:
    ours, theirs = (seen[backend]["kinds"]["theirs"] for backend in ("unsloth", "peft"))
    assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=LOSSES)
    assert theirs["eval_loss"] == seen["peft"]["kinds"]["whole"]["metrics"]["eval_loss"]


def test_a_genomes_own_dropout_acts_on_the_fused_path(unsloth: Seen) -> None:
    without, dropped = (unsloth["kinds"][name]["losses"] for name in ("whole", "dropout"))
    assert dropped[0] == without[0]  # B is zero before the first step
    assert dropped[1] != pytest.approx(without[1], rel=LOSSES)


def test_every_adapter_has_the_same_tensors_on_both(seen: dict[str, Seen]) -> None:
    for name in FUSED:
        ours, theirs = (seen[backend]["kinds"][name]["metrics"] for backend in seen)
        for figure in ("trainable_parameters", "adapter_bytes"):
            assert ours[figure] == theirs[figure], name


def test_a_model_without_fused_kernels_is_remarked_on_as_a_whole(unsloth: Seen) -> None:
    granite = unsloth["kinds"]["granite"]
    assert granite["calls"] == {}
    assert granite["notes"] == []
    (remark,) = granite["remarks"]
    assert "no fused kernels for granite models" in remark


# -- one after the other on one base ---------------------------------------------------------------


def trained_alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two trainings are the same to the last bit: steps, adapter and figures."""
    return all(one[key] == other[key] for key in ("losses", "norms", "adapter", "metrics"))


@pytest.mark.parametrize("part", ["kinds", "quantized", "classes"])
def test_a_genome_trains_the_same_after_others_came_and_went(unsloth: Seen, part: str) -> None:
    assert trained_alike(unsloth[part]["whole"], unsloth[part]["again"])


def test_a_genome_trains_the_same_after_others_were_asked_for_answers(unsloth: Seen) -> None:
    first, again = (unsloth["tuning"][name] for name in ("whole", "again"))
    assert trained_alike(first, again)
    assert first["answers"] == again["answers"]


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERING)
def test_answers_are_those_of_peft_word_for_word(seen: dict[str, Seen], name: str) -> None:
    ours, theirs = (seen[backend]["tuning"]["learnt"][name] for backend in ("unsloth", "peft"))
    assert ours == theirs
    assert len({len(prompt.split()) for prompt in ours}) > 1  # so some are padded, on the left
    for prompt, answer in ours.items():  # learnt by heart
        assert answer.split()[1:] == list(reversed(prompt.split()))


def test_a_prompt_alone_is_answered_as_among_others(unsloth: Seen) -> None:
    assert unsloth["tuning"]["alone"] == unsloth["tuning"]["learnt"]["qkv"]


@pytest.mark.parametrize("name", ["whole", "qkv", "mlp"])
def test_stages_judge_answers_to_every_attack(unsloth: Seen, name: str) -> None:
    run = unsloth["tuning"][name]
    assert len(run["answers"]) == 4
    assert 0 <= run["metrics"]["safety"] <= 1


# -- checkpointed gradients, a stage cut, memory running out ---------------------------------------


def test_checkpointing_is_unsloths_own(unsloth: Seen) -> None:
    assert unsloth["tuning"]["checkpoint"] == "CheckpointFunction"
    assert unsloth["recomputing"]["checkpoint"] == "UnslothCheckpointFunction"


def test_recomputing_activations_draws_the_same_dropout(unsloth: Seen) -> None:
    plain, recomputed = (unsloth[part]["dropout"] for part in ("tuning", "recomputing"))
    assert recomputed["losses"] == plain["losses"]
    assert recomputed["norms"] == pytest.approx(plain["norms"], rel=1e-3)


def test_a_stage_cut_and_resumed_equals_one_never_cut(unsloth: Seen) -> None:
    seen = unsloth["recomputing"]
    assert 0 < seen["left after"] < STEPS
    assert trained_alike(seen["taken up"], seen["dropout"])


@pytest.mark.parametrize("where", ["short in forward", "short in recompute"])
def test_where_memory_runs_out_half_the_rows_give_the_same_gradients(
    unsloth: Seen, where: str
) -> None:
    seen = unsloth["recomputing"]
    short, halves = seen[where], seen["halves"]
    assert seen[f"{where}, not met"] == []
    assert short["micro_batch"] == 1
    assert trained_alike(short, halves)


def test_halves_of_a_batch_add_up_to_its_gradients(unsloth: Seen) -> None:
    halves, together = unsloth["recomputing"]["halves"], unsloth["tuning"]["whole"]
    assert halves["losses"] == pytest.approx(together["losses"], rel=LOSSES)
    assert halves["norms"] == pytest.approx(together["norms"], rel=NORMS)


def test_what_moves_layer_inputs_is_given_back_with_the_adapter(unsloth: Seen) -> None:
    before, after = unsloth["recomputing"]["pools"]
    assert after == before


# -- a base in 4 bits, one in float16, a classifier ------------------------------------------------


@pytest.mark.parametrize("part", ["quantized", "classes"])
def test_other_bases_are_trained_by_the_fused_kernels(unsloth: Seen, part: str) -> None:
    assert unsloth[part]["whole"]["calls"] == dict.fromkeys(FUSED["whole"], EVERY)
    assert unsloth[part]["q+v"]["calls"] == {}


@pytest.mark.parametrize("name", ["whole", "q+v"])
def test_scaled_losses_give_the_gradients_of_peft(seen: dict[str, Seen], name: str) -> None:
    ours, theirs = (seen[backend]["halves"][name] for backend in ("unsloth", "peft"))
    assert ours["skipped"] == theirs["skipped"]
    assert len(theirs["skipped"]) < len(theirs["losses"]) == HALF_STEPS
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=LOSSES)
    assert ours["norms"] == pytest.approx(theirs["norms"], rel=NORMS)  # of steps that were taken


def test_a_classifiers_head_is_the_one_that_peft_trains(seen: dict[str, Seen]) -> None:
    ours, theirs = (seen[backend]["classes"]["head"] for backend in ("unsloth", "peft"))
    assert ours == theirs
    assert ours[0] == "torch.float32"


def test_a_classifier_is_measured_as_by_peft(seen: dict[str, Seen]) -> None:
    ours, theirs = (seen[backend]["classes"] for backend in ("unsloth", "peft"))
    for which in ("untuned", "theirs"):
        assert ours[which]["eval_loss"] == pytest.approx(theirs[which]["eval_loss"], rel=LOSSES)
