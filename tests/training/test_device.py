"""The device of a worker, with a GPU that torch only seems to have."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from coralx.backends.device_memory import CONTEXT_BYTES  # noqa: E402
from coralx.errors import SetupError  # noqa: E402
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Footprint  # noqa: E402
from coralx.training.device import keep_to_share, memory_of, require_kernels  # noqa: E402
from coralx.training.peft import PeftBackend  # noqa: E402
from tests.support.factories import make_config  # noqa: E402
from tests.support.gpus import fake_gpus  # noqa: E402

GIB = 1 << 30
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 0), ["sm_75", "sm_80", "sm_90"], True),
        ((8, 6), ["sm_75", "sm_80"], True),  # binaries run on later minor versions
        ((7, 0), ["sm_75", "sm_80", "compute_80"], False),  # Volta under CUDA 13
        ((8, 0), ["sm_86", "sm_90"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_80", "compute_80"], True),  # compiled when it is loaded
        ((9, 0), ["sm_90a"], True),
        ((12, 0), ["sm_100", "sm_120"], True),
        ((7, 0), [], True),  # a build that does not say
    ],
)
def test_a_gpu_needs_kernels_of_its_capability(
    capability: tuple[int, int], built: list[str], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 16, driver="580.1", capability=capability)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla")
    if runs:
        require_kernels(CUDA)
        return
    with pytest.raises(SetupError) as caught:
        require_kernels(CUDA)
    assert "no kernels for Tesla" in caught.value.message
    assert f"compute capability {capability[0]}.{capability[1]}" in caught.value.message
    assert "CUDA_VISIBLE_DEVICES" in caught.value.hint
    if capability == (7, 0):
        assert "a build of torch for CUDA 12.6" in caught.value.hint


@pytest.mark.parametrize("device", [CPU, torch.device("mps")])
def test_other_devices_need_none(device: Any) -> None:
    require_kernels(device)
    assert memory_of(device, DeviceMemory(8 * GIB, 8 * GIB, 2)) == DeviceMemory(sharing=2)


def test_the_memory_is_that_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20 * GIB, 24 * GIB))
    free = 20 * GIB + CONTEXT_BYTES
    assert memory_of(CUDA, NO_MEMORY) == DeviceMemory(24 * GIB, free)
    smaller = DeviceMemory(16 * GIB, 8 * GIB, 2)
    assert memory_of(CUDA, smaller) == smaller
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (24 * GIB, 24 * GIB))
    assert memory_of(CUDA, NO_MEMORY).free_bytes == 24 * GIB


def test_a_worker_keeps_to_its_share_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 40 * GIB))
    # Torch's own function, down to its call of CUDA: it takes fewer kinds of devices than others.
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch._C,
        "_cuda_setMemoryFraction",
        lambda share, number: fractions.append(share) if number == 0 else None,
        raising=False,
    )
    for memory in (DeviceMemory(40 * GIB), DeviceMemory(sharing=2)):  # alone; of unknown size
        keep_to_share(CUDA, memory)
    keep_to_share(CPU, DeviceMemory(40 * GIB, sharing=2))
    assert fractions == []
    keep_to_share(CUDA, DeviceMemory(40 * GIB, sharing=2))
    keep_to_share(CUDA, DeviceMemory(20 * GIB, sharing=2))  # another GPU of the run is smaller
    assert fractions == [(share * GIB - CONTEXT_BYTES) / (40 * GIB) for share in (20, 10)]


SMALL = Footprint(
    base_parameters=1,
    base_bytes=GIB,
    hidden_size=1024,
    intermediate_size=4096,
    layers=8,
    linear=(),
    activation_bytes=2,
)


def decided(
    device: Any, free: int, setting: object, recorded: bool | None, *, supports: bool = True
) -> tuple[bool, str, list[str]]:
    """Whether a worker checkpoints, why, and what it says."""
    backend, said = PeftBackend(), list[str]()
    backend._config = make_config(
        model={"base": "x", "task": "sft", "max_length": 256},
        runtime={"gradient_checkpointing": setting},
    )
    backend._device, backend._memory = device, DeviceMemory(80 * GIB, free)
    model: Any = SimpleNamespace(supports_gradient_checkpointing=supports)
    backend._base = SimpleNamespace(model=model)  # type: ignore[assignment]
    footprint, reason = backend._with_checkpointing(SMALL, recorded, said.append)
    assert replace(footprint, checkpointing=False) == SMALL
    return footprint.checkpointing, reason, said


def test_a_worker_decides_once_and_says_so_in_a_line() -> None:
    is_on, reason, said = decided(CUDA, 40 * GIB, "auto", None)
    assert not is_on
    assert said == [f"gradient checkpointing off: {reason}"]
    is_on, reason, said = decided(CUDA, 2 * GIB, "auto", None)
    assert is_on
    assert said == [f"gradient checkpointing on: {reason}"]


def test_what_the_run_decided_holds_whatever_is_free_now() -> None:
    for recorded in (True, False):
        for free in (2 * GIB, 40 * GIB):
            assert decided(CUDA, free, "auto", recorded) == (recorded, "as recorded", [])
            assert decided(CUDA, free, not recorded, recorded)[0] == (not recorded)


def test_a_base_that_cannot_checkpoint_does_not() -> None:
    assert decided(CUDA, 2 * GIB, "auto", None, supports=False)[0] is False


def test_a_cpu_says_nothing_of_it() -> None:
    assert decided(CPU, 0, "auto", None) == (False, "", [])
    assert decided(CPU, 0, True, None) == (True, "", [])
