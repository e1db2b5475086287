"""`coralx doctor`: the machine, and what a config needs of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from coralx.backends import choice as backend
from coralx.config import Config
from coralx.doctor import diagnosis
from coralx.doctor.diagnosis import Problem, diagnose
from coralx.doctor.output import _on_device
from coralx.doctor.requirements import Requirements, requirements_of
from coralx.errors import ConfigError, CoralXError, SetupError
from coralx.records.run_facts import Facts, Footprint
from coralx.system import environment as packages
from coralx.system.environment import Mismatch, version_mismatches
from tests.support.factories import make_config, make_facts
from tests.support.forks import forked_workers
from tests.support.gpus import GIB, fake_gpus

LAYER = tuple((f"layers.0.{name}", 100, 100) for name in ("q_proj", "v_proj", "up_proj"))
BASE = Footprint(
    base_parameters=GIB,
    base_bytes=2 * GIB,
    hidden_size=100,
    intermediate_size=400,
    layers=1,
    linear=LAYER,
    activation_bytes=2,
)


@pytest.fixture(autouse=True)
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_gpus(monkeypatch)
    return here


@pytest.fixture
def doctor(command: Any) -> Any:
    return partial(command, "doctor")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose torch could use the GPUs that a test makes up."""
    for module in (diagnosis, backend):
        monkeypatch.setattr(module, "torch_cuda", lambda: "12.8")
    monkeypatch.setattr(diagnosis, "obstacle_to_gpu", lambda: None)


# -- the machine -----------------------------------------------------------------------------------


def test_it_says_what_is_here(doctor: Any) -> None:
    said = doctor()
    assert said.code == 0
    for part in ("cores", "memory", "torch", "none visible", "free in this folder"):
        assert part in said.out
    assert "no GPU is visible" in said.out


def test_it_lists_gpus_as_json(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80, 24)
    found = json.loads(doctor("--json").out)
    machine = found["machine"]
    assert [(gpu["name"], gpu["memory_bytes"]) for gpu in machine["gpus"]] == [
        ("Fake 0", 80 * GIB),
        ("Fake 1", 24 * GIB),
    ]
    assert machine["driver"] == "600.1"
    assert found["requirements"] is None
    assert {*found["backends"]} == {"sequence-classification", "label-tokens", "sft"}


def test_a_gpu_that_torch_cannot_use_is_a_problem(
    doctor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80)
    monkeypatch.setattr(diagnosis, "torch_cuda", lambda: None)
    said = doctor()
    assert said.code == 0
    assert "CPU build: the GPU stays unused" in said.out
    assert "pytorch.org" in said.out


def test_hidden_gpus_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80, visible="")
    (problem,) = (p for p in diagnose().problems if "CUDA_VISIBLE_DEVICES" in p.problem)
    assert "hides every GPU" in problem.problem


@pytest.mark.usefixtures("on_gpu")
def test_a_gpu_that_torch_cannot_open_is_not_called_usable(
    doctor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, cuda=12040)
    monkeypatch.setattr(diagnosis, "torch_cuda", lambda: "13.0")
    obstacle = "The NVIDIA driver on your system is too old (found version 12040)."
    monkeypatch.setattr(diagnosis, "obstacle_to_gpu", lambda: obstacle)
    monkeypatch.setattr("coralx.system.cuda_probe.torch_cuda", lambda: "13.0")
    found = diagnose()
    assert not found.machine.has_usable_gpu
    assert "CPU backend" in (found.machine.unsloth_runs or "CPU backend")
    (problem,) = (p for p in found.problems if obstacle in p.problem)
    for part in ("Fake 0", "driver 600.1", "CUDA up to 12.4", "built for CUDA 13.0"):
        assert part in problem.problem
    assert "driver is too old" in problem.way_out
    assert obstacle in doctor().out
    monkeypatch.setattr(backend, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(backend, "is_installed", lambda module: True)  # noqa: ARG005
    reason = diagnose().backends["sft"].reason
    assert reason == "a GPU is visible, but torch cannot use it"


def test_slices_of_a_gpu_are_listed_in_its_place(
    doctor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 40, slices={0: [10.0, 5.0]}, capability=(8, 0))
    lines = doctor().out.splitlines()
    gpus = [" ".join(line.split()) for line in lines if line.startswith("GPU ")]
    assert gpus == [
        "GPU 0 Fake MIG-00, 10.0 GiB, 5.0 GiB free, compute capability 8.0, driver 600.1",
        "GPU 1 Fake MIG-01, 5.0 GiB, 2.5 GiB free, compute capability 8.0, driver 600.1",
    ]
    fake_gpus(monkeypatch, 40, slices={0: []})
    said = doctor().out
    assert "shows no GPU to compute on" in said
    assert "nvidia-smi mig" in said


@pytest.mark.usefixtures("on_gpu")
def test_without_unsloth_a_gpu_is_used_below_its_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80)
    monkeypatch.setattr(backend, "is_installed", lambda module: False)  # noqa: ARG005
    monkeypatch.setattr(
        diagnosis, "installed_version", lambda package: None if package == "unsloth" else "1.0"
    )
    found = diagnose()
    assert found.machine.unsloth_runs is None
    assert found.backends["sft"].name == "peft"
    assert any("coralx[unsloth]" in problem.way_out for problem in found.problems)


def test_versions_outside_the_bounds_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        "numpy>=2.0",
        "peft<0.22,>=0.21",
        "no-such-package>=1",
        'unsloth==2026.10.9; extra == "unsloth"',
        'ray<3; extra == "ray"',
    ]
    versions = {"numpy": "2.4.6", "peft": "0.23.1", "unsloth": "2027.1.1", "ray": "9.0"}
    monkeypatch.setattr(packages, "requires", lambda package: asked)  # noqa: ARG005
    monkeypatch.setattr(packages, "installed_version", versions.get)
    assert version_mismatches() == (
        Mismatch("peft", "0.23.1", "<0.22,>=0.21"),
        Mismatch("no-such-package", None, ">=1"),
        Mismatch("unsloth", "2027.1.1", "==2026.10.9"),
    )
    monkeypatch.setattr(diagnosis, "version_mismatches", version_mismatches)
    assert Problem(
        "peft is 0.23.1; tested versions: <0.22,>=0.21", "pip install 'peft<0.22,>=0.21'"
    ) in (diagnose().problems)


# -- a config --------------------------------------------------------------------------------------


def needs(capacity: int, **sections: Any) -> Requirements:
    return requirements_of(make_config(**sections), BASE, capacity)


def test_the_ends_of_the_search_space_are_measured() -> None:
    found = needs(
        4 * GIB,
        search_space={
            "rank": {"low": 2, "high": 64},
            "target_modules": {"choices": [["q_proj"], "all-linear", ["q_proj", "v_proj"]]},
            "batch_size": {"choices": [4, 32]},
        },
    )
    small, large = found.smallest.genes, found.largest.genes
    assert (small.rank, small.target_modules, small.batch_size) == (2, ("q_proj",), 4)
    assert (large.rank, large.target_modules, large.batch_size) == (64, "all-linear", 32)
    assert found.smallest.parameters == 2 * 200
    assert found.largest.parameters == 64 * 600
    each = found.largest.likely_bytes - found.base_bytes
    assert found.together == (2 * GIB) // each


@pytest.mark.parametrize(
    ("capacity", "verdict", "together"),
    [(GIB, "does not fit", 0), (2 * GIB + 10**7, "may run out of memory", 0), (0, "unknown", 0)],
)
def test_what_does_not_fit_is_said(capacity: int, verdict: str, together: int) -> None:
    found = needs(capacity, search_space={"rank": {"choices": [8]}}, model={"max_length": 512})
    assert (found.largest.verdict, found.together) == (verdict, together)


def test_what_unsloth_keeps_in_host_memory_is_counted_and_missed() -> None:
    offloading = replace(BASE, checkpointing=True, fused=True, layers=32, hidden_size=4096)
    space = {"rank": {"choices": [8]}, "batch_size": {"choices": [4, 64]}}
    config = make_config(search_space=space, model={"max_length": 512})
    found = requirements_of(config, offloading, 80 * GIB)
    assert found.host_bytes == 32 * 2 * 4096 * 64 * 512
    machine = replace(diagnosis.examine_machine(), free_memory_bytes=12 * GIB)
    shared = replace(found, sharing=2)
    assert list(diagnosis._shortages(found, machine)) == []
    (problem,) = diagnosis._shortages(shared, machine)
    assert "up to 16.0 GiB of activations" in problem.problem
    told = " ".join(_on_device(shared))
    assert "2 workers share a GPU" in told
    assert "up to 8.0 GiB of them in the machine's memory" in told


def test_disk_counts_the_checkpoints_that_are_kept() -> None:
    sections = {"evolution": {"population_size": 8, "generations": 3}}
    needed = needs(GIB, **sections)
    kept = needs(GIB, **sections, runtime={"keep_checkpoints": "all"})
    # Parents, newborns, these once more a stage further, and as many derived ones as parents.
    assert needed.checkpoints == 32
    assert kept.checkpoints > 3 * 8
    parameters = needed.largest.parameters
    assert needed.disk_bytes == parameters * (32 * 12 + 8 * 4)
    assert needed.least_disk_bytes == needed.smallest.parameters * (8 * 12 + 4)


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from coralx.training.tiny_model import main as write

    folder = tmp_path_factory.mktemp("specimen")
    write([str(folder)])
    return folder


@pytest.fixture
def config_file(specimen: Path, here: Path) -> str:
    path = here / "c.yaml"
    path.write_text(
        f"model: {{base: {specimen / 'model'}, task: label-tokens, max_length: 64}}\n"
        f"data: {{train: {specimen / 'texts.jsonl'}, labels: [negative, positive]}}\n",
        encoding="utf-8",
    )
    return str(path)


@pytest.mark.usefixtures("on_gpu")
def test_a_config_is_measured_against_the_smallest_gpu_that_it_uses(
    doctor: Any, config_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 0.001, 0.0001)
    monkeypatch.setattr(backend, "is_installed", lambda module: True)  # noqa: ARG005
    with forked_workers():
        said = doctor(config_file, "--json", "--set", "runtime.devices=[0,1]")
    assert said.code == 0
    found = json.loads(said.out)
    assert found["backends"]["label-tokens"]["name"] == "unsloth"
    required = found["requirements"]
    assert required["capacity_bytes"] == int(0.001 * GIB)
    assert required["base_parameters"] == 93504
    small, large = required["smallest"], required["largest"]
    assert large["genes"]["target_modules"] == "all-linear"
    assert small["genes"]["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert (small["verdict"], large["verdict"]) == ("may run out of memory", "does not fit")
    assert sum("smaller ranks" in p["way_out"].lower() for p in found["problems"]) == 2


@pytest.fixture
def inspected_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases are looked at in this process, where torch is imported already, not by a worker."""
    from coralx.training.footprint import footprint_without_weights

    monkeypatch.setattr(diagnosis, "footprint_of_base", footprint_without_weights)


@pytest.mark.usefixtures("inspected_here")
def test_a_base_that_is_not_there_is_a_problem_and_a_config_with_mistakes_is_refused(
    doctor: Any, config_file: str
) -> None:
    said = doctor(config_file, "--set", "model.base=/no/such/model")
    assert (said.code, said.out.count("model.base: no such folder")) == (2, 1)
    assert "cores" in said.out  # what can be said of the machine is said all the same
    said = doctor(config_file, "--set", "data.train=nowhere.csv")
    assert (said.code, "data.train: no such file" in said.out) == (2, True)
    said = doctor(config_file, "--set", "model.tusk=1")
    assert (said.code, "tusk" in said.err) == (2, True)


@pytest.mark.usefixtures("inspected_here")
def test_a_config_that_cannot_be_trained_is_refused(doctor: Any, config_file: str) -> None:
    with forked_workers():
        said = doctor(config_file, "--set", "data.text=words")
    assert said.code == 2
    assert "starting a worker" in said.err
    assert "problem: data.text" in said.out
    assert "cores" in said.out


@pytest.mark.parametrize(
    ("error", "code", "trial"),
    [
        (ConfigError("config", ["model.base: it pads"], "Do this."), 2, "refused"),
        (SetupError("out of memory", "Do that."), 4, "failed"),
        (None, 0, "trained"),
    ],
)
def test_what_the_trial_batch_brings_is_said_with_its_exit_code(
    doctor: Any,
    config_file: str,
    monkeypatch: pytest.MonkeyPatch,
    error: CoralXError | None,
    code: int,
    trial: str,
) -> None:
    def try_out(config: Config, backend: str, listener: Any) -> Facts:
        assert (config.model.task, backend) == ("label-tokens", "peft")
        listener("trying")
        if error is not None:
            raise error
        return replace(make_facts(), warnings=("3 rows were cut",))

    footprint_without_weights = Mock(return_value=replace(BASE, base_bytes=10**6))
    monkeypatch.setattr(diagnosis, "footprint_of_base", footprint_without_weights)
    monkeypatch.setattr(diagnosis, "try_out", try_out)
    monkeypatch.setattr(diagnosis, "driver_version", lambda: None)
    said = doctor(config_file)
    assert (said.code, "trying" in said.err) == (code, True)
    if error is None:
        assert (
            "Trained one batch with the smallest genome (rank 2 on all-linear) and the largest"
            in said.out
        )
        assert "warning: 3 rows were cut" in said.out
        assert "No problems found." in said.out
    else:
        assert "Trained" not in said.out
        assert error.hint in said.out
    found = doctor(config_file, "--json")
    assert (found.code, json.loads(found.out)["trial"]) == (code, trial)
    said = doctor(config_file, "--set", "runtime.devices=[0]")  # nothing is tried
    assert (said.code, "trying" in said.err) == (0, False)


def test_a_config_needs_no_gpu_to_be_diagnosed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "is_installed", lambda _: False)
    config = make_config(
        model={"task": "sft"},
        data={"train": str(here / "no.csv")},
        runtime={"devices": [0], "quantization": "4bit"},
    )
    problems = diagnose(config).problems
    told = " ".join(problem.problem for problem in problems)
    for part in ("data.train: no such file", "runtime.devices", "runtime.quantization: 4bit"):
        assert part in told
    assert "pip install 'coralx[quantization]'" in " ".join(one.way_out for one in problems)


def test_without_bitsandbytes_a_base_in_4_bits_cannot_be_trained(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "is_installed", lambda _: False)
    (here / "rows.csv").write_text("prompt,completion\na,b\n", encoding="utf-8")
    config = make_config(
        model={"base": str(here), "task": "sft"},
        data={"train": str(here / "rows.csv")},
        runtime={"backend": "peft", "quantization": "4bit"},
    )
    monkeypatch.setattr(diagnosis, "_required", lambda *_: None)
    assert diagnose(config).trial == "failed"


def test_a_backend_that_is_not_installed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_installed", lambda module: False)  # noqa: ARG005
    config = make_config(model={"task": "sft"}, runtime={"backend": "unsloth"})
    problems = diagnose(config).problems
    assert any("coralx[unsloth]" in problem.way_out for problem in problems)
    with pytest.raises(ConfigError, match=r"runtime\.quantization"):  # of a classifier
        diagnose(make_config(runtime={"quantization": "4bit"}))
