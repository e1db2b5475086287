"""GPUs seen without torch, and which of them each worker gets."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from coralx.config import Config
from coralx.errors import ConfigError
from coralx.execution import local, process
from coralx.execution.local import LocalExecutor
from coralx.execution.messages import Hello, Order, Prepare, Ready, Reply
from coralx.records.run_facts import Facts
from coralx.system.gpus import Gpu, driver_version, visible_gpus
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


# -- workers ---------------------------------------------------------------------------------------


class FakeProcess:
    """Stands where a worker process would: answers orders, and remembers its environment."""

    device, devices_without_pin = "cuda", 3

    def __init__(
        self, number: int, backend: str, threads: int, slot: int, extra: Mapping[str, str]
    ) -> None:
        self.number, self.slot, self.pid, self.threads = number, slot, 100 + number, threads
        self.extra = dict(extra)
        self.pin = extra.get("CUDA_VISIBLE_DEVICES")
        self.ready, self.job, self.silence = False, None, 0.0
        self._reader, writer = os.pipe()
        os.close(writer)  # at its end, a pipe is ready to be read
        is_gpu = self.device == "cuda"
        self.count = len(self.pin.split(",")) if self.pin else self.devices_without_pin
        self.replies: list[Reply] = [Hello(self.device, self.count if is_gpu else 1)]

    def __del__(self) -> None:
        os.close(self._reader)

    def fileno(self) -> int:
        return self._reader

    def facts(self) -> Facts:
        return replace(make_facts(), device=self.device, device_count=self.count)

    def send(self, order: Order) -> None:
        if isinstance(order, Prepare):
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


def allocators(started: list[FakeProcess]) -> list[set[str]]:
    """How each worker's allocator was set, by all variables that name it."""
    return [
        {value for name, value in worker.extra.items() if name.endswith("ALLOC_CONF")}
        for worker in started
    ]


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as built for CUDA, on Linux, with its allocator left alone."""
    monkeypatch.setattr(process, "torch_cuda", lambda: "12.8")
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-45-generic")
    for name in process.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("cuda_build")
def test_workers_on_nvidia_gpus_have_segments_that_grow(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 80)
    run_on(config_with())
    assert allocators(started) == [{"expandable_segments:True"}] * 2
    assert set(process.ALLOCATOR) <= set(started[0].extra)  # torch reads the one or the other
    started.clear()
    run_on(config_with(), backend="unsloth")
    assert allocators(started) == [set(), set()]


@pytest.mark.usefixtures("cuda_build")
@pytest.mark.parametrize("name", process.ALLOCATOR)
def test_an_allocator_that_the_user_set_is_left_alone(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fake_gpus(monkeypatch, 80)
    monkeypatch.setenv(name, "max_split_size_mb:256")
    run_on(config_with())
    assert allocators(started) == [set()]


@pytest.mark.usefixtures("cuda_build")
@pytest.mark.parametrize(
    ("kernel", "cuda"),
    [
        ("5.15.167.4-microsoft-standard-WSL2", "12.8"),
        ("5.15.148-tegra", "12.6"),
        ("6.8.0-45-generic", None),  # ROCm, whose GPUs NVML does not know
    ],
)
def test_segments_do_not_grow_where_they_cannot(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch, kernel: str, cuda: str | None
) -> None:
    fake_gpus(monkeypatch, *([80, 80] if cuda else []))
    monkeypatch.setattr(platform, "release", lambda: kernel)
    monkeypatch.setattr(process, "torch_cuda", lambda: cuda)
    run_on(config_with(workers=2))
    assert started[1].pin
    assert allocators(started) == [set(), set()]


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
