"""GPUs seen without torch, and which of them each worker gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from coralx.config import Config
from coralx.errors import ConfigError
from coralx.execution import local
from coralx.execution.local import LocalExecutor
from coralx.execution.messages import Hello, Order, Prepare, Ready, Reply
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Facts
from coralx.system.gpus import Gpu, driver_cuda, driver_version, visible_gpus
from tests.support.factories import make_config, make_facts
from tests.support.gpus import GIB, fake_gpus


def test_without_a_driver_no_gpu_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    pynvml = pytest.importorskip("pynvml")

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert visible_gpus() == ()
    assert driver_version() is None


def test_a_driver_that_breaks_down_is_one_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80)
    nvml = sys.modules["pynvml"]

    def fail(number: int) -> None:  # noqa: ARG001
        raise nvml.NVMLError

    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", fail)
    assert visible_gpus() == ()


def test_gpus_have_names_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80, 24)
    assert visible_gpus() == (
        Gpu(0, "GPU-0a-0b", "Fake 0", 80 * GIB, 40 * GIB),
        Gpu(1, "GPU-1a-1b", "Fake 1", 24 * GIB, 12 * GIB),
    )
    assert driver_version() == "600.1"


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, ["GPU-0a-0b", "GPU-1a-1b", "GPU-2a-2b"]),
        ("", []),
        ("-1", []),
        ("2,0", ["2", "0"]),
        (" 1 , GPU-0a", ["1", "GPU-0a"]),
        ("0,7,1", ["0"]),  # CUDA reads up to the first that it does not know
        ("GPU-9", []),
        ("MIG-7", ["MIG-7"]),
        ("MIG-8,0", []),
    ],
)
def test_cuda_visible_devices_is_respected(
    visible: str | None, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 24, 16, visible=visible)
    gpus = visible_gpus()
    assert [gpu.uuid for gpu in gpus] == seen
    assert [gpu.index for gpu in gpus] == list(range(len(seen)))


def test_an_entry_brings_the_memory_of_the_gpu_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80, 24, visible="GPU-1a,MIG-7")
    assert [gpu.memory_bytes for gpu in visible_gpus()] == [24 * GIB, 10 * GIB]


def test_what_a_driver_does_not_say_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80)
    nvml = sys.modules["pynvml"]

    def fail(*_: object) -> None:
        raise nvml.NVMLError

    for name in ("MemoryInfo", "Name", "CudaComputeCapability", "ComputeMode", "MigMode"):
        monkeypatch.setattr(nvml, f"nvmlDeviceGet{name}", fail)
    monkeypatch.setattr(nvml, "nvmlSystemGetCudaDriverVersion", fail)
    assert visible_gpus() == (Gpu(0, "GPU-0a-0b", "GPU", 0, 0),)
    assert driver_cuda() is None


def test_a_card_tells_its_capability_and_whether_it_can_be_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_gpus(monkeypatch, 16, capability=(7, 5), exclusive=True, cuda=12040)
    (gpu,) = visible_gpus()
    assert gpu.capability == (7, 5)
    assert gpu.is_exclusive
    assert driver_cuda() == "12.4"


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        # A whole GPU, one in slices with an empty place between two, one in MIG mode without any.
        (None, [("GPU-0a-0b", 80), ("MIG-10", 10), ("MIG-12", 20)]),
        ("1,0", [("MIG-10", 10), ("MIG-12", 20), ("0", 80)]),
        ("GPU-1a", [("MIG-10", 10), ("MIG-12", 20)]),
        ("MIG-12", [("MIG-12", 20)]),
        ("MIG-12,MIG-10", [("MIG-12", 20), ("MIG-10", 10)]),
        ("2", []),
    ],
)
def test_a_gpu_in_slices_is_seen_by_its_slices(
    visible: str | None, seen: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 40, 40, visible=visible, slices={1: [10, None, 20], 2: []})
    gpus = visible_gpus()
    assert [(gpu.uuid, gpu.memory_bytes) for gpu in gpus] == [(n, size * GIB) for n, size in seen]
    assert [gpu.index for gpu in gpus] == list(range(len(seen)))


# -- workers ---------------------------------------------------------------------------------------


class FakeProcess:
    """Stands where a worker process would: answers orders, and remembers its environment."""

    device, devices_without_pin = "cuda", 3

    def __init__(
        self, number: int, backend: str, threads: int, slot: int, extra: Mapping[str, str]
    ) -> None:
        self.number, self.slot, self.pid, self.threads = number, slot, 100 + number, threads
        self.pin = extra.get("CUDA_VISIBLE_DEVICES")
        self.ready, self.job, self.silence = False, None, 0.0
        self._reader, writer = os.pipe()
        os.close(writer)  # at its end, a pipe is ready to be read
        is_gpu = self.device == "cuda"
        self.count = len(self.pin.split(",")) if self.pin else self.devices_without_pin
        self.memory, self.checkpointing = NO_MEMORY, None
        self.replies: list[Reply] = [Hello(self.device, self.count if is_gpu else 1)]

    def __del__(self) -> None:
        os.close(self._reader)

    def fileno(self) -> int:
        return self._reader

    def facts(self) -> Facts:
        return replace(make_facts(), device=self.device, device_count=self.count)

    def send(self, order: Order) -> None:
        if isinstance(order, Prepare):
            self.memory, self.checkpointing = order.memory, order.checkpointing
            self.replies.append(Ready(self.facts(), 1, 0.5))

    def receive(self) -> Sequence[Reply]:
        replies, self.replies = self.replies, []
        return replies

    def kill(self) -> None: ...


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FakeProcess]:
    """The workers that executors of this test start."""
    workers: list[FakeProcess] = []

    def start(*arguments: Any) -> FakeProcess:
        workers.append(FakeProcess(*arguments))
        return workers[-1]

    monkeypatch.setattr(local, "WorkerProcess", start)
    return workers


def run_on(config: Config, backend: str = "peft", jobs: int = 8) -> tuple[LocalExecutor, Facts]:
    """An executor with as many workers started as it would have for so many jobs."""
    executor = LocalExecutor(backend)
    facts = executor.start(config, None, lambda signal: None)  # noqa: ARG005
    executor._staff(jobs)
    return executor, facts


def config_with(**runtime: Any) -> Config:
    return make_config(evolution={"population_size": 8}, runtime=runtime)


def test_each_gpu_has_one_worker_pinned_from_the_beginning(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 80, 80)
    executor, facts = run_on(config_with())
    assert [worker.pin for worker in started] == ["GPU-0a-0b", "GPU-1a-1b", "GPU-2a-2b"]
    assert executor.settings.workers == 3
    assert facts.device_count == 3


def test_workers_are_pinned_to_the_slices_of_several_gpus(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 40, 80, slices={0: [20, 10], 1: [40]})
    executor, facts = run_on(config_with())
    assert [worker.pin for worker in started] == ["MIG-00", "MIG-01", "MIG-10"]
    assert executor.settings.workers == facts.device_count == 3
    assert started[0].memory == DeviceMemory(10 * GIB, 5 * GIB)  # of the smallest slice


def test_devices_counts_within_the_visible_gpus(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 80, 80, visible="2,1")
    _, facts = run_on(config_with(devices=[1]))
    assert [worker.pin for worker in started] == ["1"]
    assert facts.device_count == 1


def test_more_workers_than_gpus_share_them(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 80)
    run_on(config_with(workers=4))
    assert [worker.pin for worker in started] == ["GPU-0a-0b", "GPU-1a-1b"] * 2


def test_a_new_worker_takes_the_place_of_the_one_that_failed(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 80)
    executor, _ = run_on(config_with())
    executor._workers.pop(0)
    executor._staff(2)
    assert [worker.pin for worker in started] == ["GPU-0a-0b", "GPU-1a-1b", "GPU-0a-0b"]


def test_gpus_that_only_the_worker_sees_are_shared_out_by_number(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch)  # ROCm: torch says cuda, NVML knows nothing
    _, facts = run_on(config_with(devices=[0, 2]))
    assert [worker.pin for worker in started] == [None, "2"]
    assert facts.device_count == 2


def test_a_cpu_has_no_pins(started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    fake_gpus(monkeypatch)
    run_on(config_with(workers=2))
    assert [worker.pin for worker in started] == [None, None]


def test_a_simulation_needs_no_gpu(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProcess, "device", "none")
    fake_gpus(monkeypatch, 80)
    run_on(config_with(), backend="simulated")
    assert {worker.pin for worker in started} == {None}


def test_a_device_that_is_not_there_is_named_before_a_worker_starts(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 24)
    with pytest.raises(ConfigError) as caught:
        run_on(config_with(devices=[0, 3]))
    (problem,) = caught.value.problems
    assert problem == (
        "runtime.devices: no GPU 3; visible are 0 (Fake 0, 80 GiB), 1 (Fake 1, 24 GiB)"
    )
    assert caught.value.hint
    assert started == []


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("gigabytes", [(), (80,)])  # no GPU, or one that a CPU build cannot use
def test_devices_without_a_gpu_to_train_on_are_refused(
    gigabytes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    fake_gpus(monkeypatch, *gigabytes)
    with pytest.raises(ConfigError, match="none is visible to torch"):
        run_on(config_with(devices=[0]))


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ({"devices": []}, "runtime.devices"),
        ({"devices": [-1]}, "runtime.devices"),
        ({"devices": [0, 0]}, "listed twice"),
        ({"devices": [0], "executor": "in-process"}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_devices_that_make_no_sense_are_refused(runtime: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_with(**runtime)
