"""Which build of torch is installed for which GPU and driver."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from coralx.system import torch_builds
from coralx.system.torch_builds import BUILDS, TORCH, answer
from tests.support.nvidia_smi import fake_nvidia_smi
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One without an NVIDIA GPU, whatever this one has."""
    monkeypatch.setattr(torch_builds, "WSL", tmp_path / "wsl" / "nvidia-smi")
    monkeypatch.setattr(torch_builds, "DEVICE", tmp_path / "nvidiactl")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def asked(wanted: str = "auto") -> tuple[str, str]:
    """The answer, and what its user is told."""
    notes: list[str] = []
    found = answer(wanted, notes.append)
    return found, " | ".join(notes)


def test_a_machine_without_a_gpu_hears_nothing_of_it() -> None:
    assert asked() == ("none", "")


@pytest.mark.parametrize(
    ("driver", "capabilities", "build"),
    [
        ("580.95.05", ["9.0"], "13.0"),
        ("615.4", ["12.0"], "13.0"),
        ("580.65.06", ["7.5"], "13.0"),  # a T4
        ("580.65.06", ["7.0"], "12.6"),  # a V100, which CUDA 13 does not know
        ("579.99", ["7.5"], "12.6"),
        ("525.60.13", ["8.9"], "12.6"),
        ("580.1", ["7.0", "8.0"], "12.6"),  # a build for both
        ("580.1", ["[N/A]"], "13.0"),
    ],
)
def test_the_newest_build_that_runs_on_driver_and_gpus_is_taken(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    capabilities: list[str],
    build: str,
) -> None:
    monkeypatch.setenv("PATH", str(fake_nvidia_smi(machine / "bin", driver, *capabilities)))
    assert asked() == (build, "")


@pytest.mark.parametrize(
    ("driver", "capabilities", "told"),
    [
        ("470.57.02", [], "driver 470.57.02 is too old for torch 2.13, which needs 525 or newer"),
        ("524.99", ["8.6"], "driver 524.99 is too old for torch 2.13, which needs 525 or newer"),
        ("570.86", ["12.0"], "driver 570.86 is too old for torch 2.13, which needs 580 or newer"),
        ("580.1", ["6.1"], "the compute capability is 6.1, and training needs 7.0 (Volta)"),
    ],
)
def test_a_gpu_that_no_build_runs_on_is_left_alone_and_its_user_told_why(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    capabilities: list[str],
    told: str,
) -> None:
    monkeypatch.setenv("PATH", str(fake_nvidia_smi(machine / "bin", driver, *capabilities)))
    found, notes = asked()
    assert found == "unused"
    assert told in notes


def test_of_several_gpus_those_that_cannot_be_used_are_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_nvidia_smi(machine / "bin", "580.1", "6.1", "8.6")))
    found, notes = asked()
    assert found == "13.0"
    assert "capability 6.1. Leave these out of CUDA_VISIBLE_DEVICES" in notes


@pytest.mark.parametrize("hidden", ["", " ", "-1"])
def test_gpus_that_are_hidden_are_not_used(
    machine: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setenv("PATH", str(fake_nvidia_smi(machine / "bin", "580.1", "8.6")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert asked() == ("unused", "no GPU is used: CUDA_VISIBLE_DEVICES hides every one")


def test_an_nvidia_smi_that_fails_or_lists_nothing_counts_as_no_gpu(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = fake_nvidia_smi(machine / "broken", "580.1", "8.6", fails="No devices were found")
    monkeypatch.setenv("PATH", str(broken))
    assert asked() == ("unused", "no GPU is used: nvidia-smi fails: No devices were found")
    monkeypatch.setenv("PATH", str(fake_nvidia_smi(machine / "empty", "", "")))
    (machine / "empty" / "nvidia-smi").write_text("#!/bin/sh\n")
    assert asked() == ("unused", "no GPU is used: nvidia-smi lists no GPU")
    (machine / "empty" / "nvidia-smi").write_bytes(b"\x7fELF")
    found, notes = asked()
    assert found == "unused"
    assert "nvidia-smi does not answer" in notes


def test_the_driver_of_windows_is_found_where_its_linux_has_it(machine: Path) -> None:
    fake_nvidia_smi(machine / "wsl", "581.15", "8.9")
    assert asked() == ("13.0", "")


def test_a_container_without_the_drivers_tools_is_told_what_it_needs(machine: Path) -> None:
    (machine / "nvidiactl").touch()
    found, notes = asked()
    assert found == "unused"
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in notes


def test_what_the_user_names_is_taken_unseen(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked("12.6") == ("12.6", "")
    monkeypatch.setenv("PATH", str(fake_nvidia_smi(machine / "bin", "580.1", "8.6")))
    assert asked("no") == ("unused", "")
    with pytest.raises(ValueError, match=re.escape("GPU=9 is none of auto, no, 13.0, 12.6")):
        asked("9")


def test_the_builds_are_of_the_torch_that_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    (torch,) = [line for line in lines if line.startswith("torch==")]
    assert torch.startswith(f"torch=={TORCH}.")
    newest, *older = BUILDS
    assert all(build.least_driver < newest.least_driver for build in older)
    # what its CUDA build asks for: another pin would leave nothing that can be installed
    assert torch == "torch==2.13.0"
    assert {"triton==3.7.1", "torchvision==0.28.0"} <= set(lines)


def test_it_needs_nothing_but_the_standard_library() -> None:
    text = Path(torch_builds.__file__).read_text("utf-8")
    imported = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    assert "subprocess" in imported
    assert set(imported) <= sys.stdlib_module_names
