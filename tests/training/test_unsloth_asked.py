"""What CoralX asks of Unsloth, and what it makes of the model: by stand-ins for Unsloth's packages,
which load real models. How the real one trains stands in test_unsloth.py and in the contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from coralx.backends.unsloth_support import unimportable
from tests.support.paths import ROOT, SUPPORT


@pytest.fixture(scope="module")
def seen(
    causal_config: Callable[[str], dict[str, Any]],
    tiny_base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What tests/support/unsloth_asked.py saw."""
    folder = tmp_path_factory.mktemp("asked")
    config = causal_config("label-tokens")
    write_bases(Path(config["model"]["base"]), tiny_base, folder)
    (folder / "config.json").write_text(json.dumps(config))
    path = os.pathsep.join([str(SUPPORT / "stand_ins"), str(ROOT)])
    run = subprocess.run(
        [sys.executable, str(SUPPORT / "unsloth_asked.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    return found


def write_bases(base: Path, encoder: Path, folder: Path) -> None:
    """`model`, which reads 512 tokens, and those that differ from it in one thing each."""
    import torch

    (folder / "bert").symlink_to(encoder)
    for name in ("model", "unpaddable"):
        (folder / name).mkdir()
        for file in base.iterdir():
            (folder / name / file.name).write_bytes(file.read_bytes())
        described = json.loads((folder / name / "config.json").read_text())
        described["max_position_embeddings"] = 900
        (folder / name / "config.json").write_text(json.dumps(described))
    tokenizer = AutoTokenizer.from_pretrained(base)
    for name, classes in (("two", 2), ("three", 3)):
        torch.manual_seed(0)
        classifier = AutoModelForSequenceClassification.from_pretrained(
            folder / "model", num_labels=classes
        )
        classifier.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder / "unpaddable")


def test_float32_is_offloaded_as_it_is(seen: dict[str, Any]) -> None:
    """Else layer inputs of a base in float32 come back rounded to bf16."""
    assert seen["environment"]["UNSLOTH_OFFLOAD_FP32"] == "exact"
    assert seen["environment"]["UNSLOTH_BLOCK_COMPILE"] == "0"


def test_code_that_unsloth_writes_for_a_base_is_not_compiled(seen: dict[str, Any]) -> None:
    """Only bases without kernels of Unsloth's own are computed by such code."""
    fused, wanted, written = seen["compiles"]
    assert (fused, wanted, written) == (None, None, "partial")


@pytest.mark.parametrize(
    ("length", "device", "recomputes", "asked"),
    [
        (48, "cuda", True, True),  # below 512 tokens, offloading costs more than it saves
        (511, "cuda", True, True),
        (512, "cuda", True, "unsloth"),
        (900, "cuda", True, "unsloth"),
        (900, "cuda", False, False),
        (900, "cpu", True, True),
        (48, "cpu", False, False),
    ],
)
def test_layer_inputs_are_offloaded_by_need_and_length(
    seen: dict[str, Any], length: int, device: str, recomputes: bool, asked: bool | str
) -> None:
    found = seen[f"{length} {device} {recomputes}"]
    assert found["length"] == length  # not raised, which would have Unsloth offload short texts
    assert (found["loaded"], found["wrapped"]) == (False, asked)


def test_memory_of_offloaded_layer_inputs_is_given_back(seen: dict[str, Any]) -> None:
    assert seen["512 cuda True"]["called"] == [
        "unpatch",
        "synchronize",  # or what the GPU still copies from would stay page-locked
        "empty host cache",
        "patch torch.bfloat16",
    ]
    for case in ("511 cuda True", "900 cuda False", "900 cpu True"):
        assert seen[case]["called"] == []


@pytest.mark.parametrize(
    ("model", "drawn", "notes"),
    [("model", ["score"], 0), ("two", [], 0), ("three", ["score"], 1)],
)
def test_a_head_is_the_one_that_peft_trains(
    seen: dict[str, Any], model: str, drawn: list[str], notes: int
) -> None:
    head = seen[f"head of {model}"]
    assert head["equal"]  # also where it comes with the base, in float32
    assert (head["type"], head["backbone"]) == ("torch.float32", "torch.bfloat16")
    assert (head["head"], head["task"]) == (drawn, "SEQ_CLS")
    assert len(set(head["padding"])) == 1  # not the token that Unsloth pads with
    assert len(head["notes"]) == notes
    assert head["same notes"] == []
    assert "score" not in head["targets"]


def test_what_unsloth_does_not_classify_with_is_refused(seen: dict[str, Any]) -> None:
    assert "classifies sequences on a GPU alone" in seen["on a CPU"]
    assert "is an encoder (bert)" in seen["encoder"]
    assert all("runtime.backend: peft" in seen[case] for case in ("on a CPU", "encoder"))


def test_a_tokenizer_that_unsloth_cannot_pad_with_is_explained(seen: dict[str, Any]) -> None:
    assert "its tokenizer has no token that Unsloth can pad with" in seen["unpaddable"]
    assert "--backend peft" in seen["unpaddable"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("No module named 'unsloth'"), "cannot be imported: No module named 'unsloth'"),
        (NotImplementedError("You need\n a GPU."), "finds no device to train on: You need a GPU."),
        (RuntimeError("Weirdly `torch.accelerator` works"), "finds no device to train on: Weirdly"),
        (RuntimeError("operator nms does not exist"), "cannot be imported: RuntimeError: operator"),
        (AttributeError(), "cannot be imported: AttributeError: AttributeError"),
    ],
)
def test_a_failed_import_says_the_way_out(error: Exception, said: str) -> None:
    found = unimportable(error)
    assert f"Unsloth {said}" in found.message
    assert "--backend peft" in found.hint
    assert found.exit_code == 4


def test_an_import_that_finds_no_gpu_is_a_known_error(tmp_path: Path) -> None:
    """Unsloth raises NotImplementedError where it finds no device, which is no ImportError."""
    (tmp_path / "unsloth.py").write_text("raise NotImplementedError('You need a GPU.')")
    code = (
        "from coralx.backends.protocol import create\n"
        "from coralx.errors import SetupError\n"
        "try:\n    create('unsloth')\nexcept SetupError as error:\n    print(error.message)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Unsloth finds no device to train on: You need a GPU." in run.stdout, run.stderr
