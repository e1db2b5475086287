"""GPUs seen without torch, and which of them each worker gets."""

from __future__ import annotations

import platform
import sys
from typing import Any

import pytest

from coralx.backends.simulated import SimulatedBackend
from coralx.errors import ConfigError, SetupError
from coralx.execution import placement, process
from coralx.execution.inprocess import InProcessExecutor
from coralx.execution.local import LocalExecutor
from coralx.records.run_facts import NO_MEMORY, DeviceMemory
from coralx.system import cuda_probe
from coralx.system.cuda_probe import obstacle_to_gpu, unusable
from coralx.system.gpus import Gpu, driver_cuda, driver_version, visible_gpus
from tests.support.fake_workers import FakeProcess, config_with, run_on
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


@pytest.mark.parametrize(
    ("device", "gpus", "spawned", "kept"),
    [
        ("cpu", (), 3, 3),
        ("cuda", (80, 80), 1, 1),  # which GPU the others get is not known yet
        ("cuda", (), 3, 1),  # one that only torch sees, as with ROCm
    ],
)
def test_workers_on_a_cpu_start_side_by_side(
    started: list[FakeProcess],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: tuple[int, ...],
    spawned: int,
    kept: int,
) -> None:
    monkeypatch.setattr(FakeProcess, "device", device)
    monkeypatch.setattr(sys, "platform", "linux")
    fake_gpus(monkeypatch, *gpus)
    executor = LocalExecutor("peft", has_jobs=True)
    executor.start(config_with(workers=3, threads_per_worker=2), None, lambda _: None)
    assert len(started) == spawned
    assert len(executor._workers) == kept
    assert executor.settings.workers == 3
    assert {worker.threads for worker in started[1:]} <= {2}


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
    monkeypatch.setattr(placement, "torch_cuda", lambda: None)
    fake_gpus(monkeypatch, *gigabytes)
    with pytest.raises(ConfigError, match="none is visible to torch"):
        run_on(config_with(devices=[0]))


# -- GPUs that torch cannot use --------------------------------------------------------------------


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("in_process", [False, True])
def test_a_gpu_that_torch_cannot_open_ends_the_run(
    in_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    monkeypatch.setattr(placement, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(cuda_probe, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(placement, "obstacle_to_gpu", lambda: "the driver is too old")
    fake_gpus(monkeypatch, 80, driver="550.54", cuda=12040, capability=(8, 0))
    executor = InProcessExecutor("simulated") if in_process else LocalExecutor("peft")
    monkeypatch.setattr(SimulatedBackend, "devices", lambda self: ("cpu", 1))  # noqa: ARG005
    with pytest.raises(SetupError) as caught:
        executor.start(config_with(), None, lambda signal: None)  # noqa: ARG005
    said = f"{caught.value.message} {caught.value.hint}"
    for part in (
        "(Fake 0)",
        "the driver is too old",
        "driver 550.54 (for CUDA up to 12.4)",
        "built for CUDA 13.0",
        "The driver is too old for this torch. Install a newer driver",
        "a build of torch for CUDA 12.6",
        'CUDA_VISIBLE_DEVICES=""',
    ):
        assert part in said


def test_a_later_worker_does_not_fall_to_the_cpu_either(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 80)
    executor, said = LocalExecutor("peft"), list[object]()
    executor.start(config_with(), None, said.append)
    monkeypatch.setattr(FakeProcess, "device", "cpu")  # of the second GPU
    for _ in range(3):
        executor._staff(2)
        assert list(executor._outcomes(0.0)) == []
    executor._staff(2)
    assert [worker.pin for worker in started] == ["GPU-0a-0b", *["GPU-1a-1b"] * 3]
    assert [worker.number for worker in executor._workers] == [0]
    assert said[-1] == (
        "worker 3 could not start: it can use no GPU, and would train on the cpu; continuing with "
        "one worker fewer"
    )


@pytest.mark.parametrize("visible", ["", "-1"])
def test_who_hides_the_gpus_trains_on_the_cpu(
    visible: str, started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    monkeypatch.setattr(placement, "torch_cuda", lambda: "13.0")
    fake_gpus(monkeypatch, 80, visible=visible)
    _, facts = run_on(config_with(workers=1))
    assert [worker.pin for worker in started] == [None]
    assert facts.warnings == ()


@pytest.mark.usefixtures("started")
def test_a_cpu_build_of_torch_is_told_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    monkeypatch.setattr(placement, "torch_cuda", lambda: None)
    fake_gpus(monkeypatch, 80)
    _, facts = run_on(config_with(workers=1))
    assert facts.warnings == ("torch is a CPU build: training on the CPU, and Fake 0 stays unused",)


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(("visible", "is_warned"), [(None, True), ("", False)])
def test_a_driver_without_a_gpu_to_compute_on_is_told_of(
    visible: str | None, is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a GPU in MIG mode of which no slices have been made."""
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    monkeypatch.setattr(placement, "torch_cuda", lambda: "13.0")
    fake_gpus(monkeypatch, 80, slices={0: []}, visible=visible)
    _, facts = run_on(config_with(workers=1))
    shown = "NVIDIA's driver 600.1 shows no GPU to compute on: training on the CPU"
    assert [shown in warning for warning in facts.warnings] == [True] * is_warned


def test_a_gpu_that_no_torch_is_built_for_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_probe, "torch_cuda", lambda: "13.0")
    fake_gpus(monkeypatch, 12, driver="470.1", cuda=11040, capability=(3, 5))
    error = unusable(visible_gpus())
    assert "The compute capability is 3.5" in error.hint
    assert 'CUDA_VISIBLE_DEVICES=""' in error.hint


def test_a_driver_in_disorder_is_no_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_probe, "torch_cuda", lambda: "12.8")
    fake_gpus(monkeypatch, 80, 80, cuda=13000)
    error = unusable(visible_gpus())
    assert "nvidia-smi" in error.hint
    assert "too old" not in error.hint


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", None),
        ("print('Welcome')", None),  # as a sitecustomize may
        ("import sys; sys.exit('Found no NVIDIA driver')", "Found no NVIDIA driver"),
        ("import os; os._exit(3)", "torch ended with exit code 3"),
    ],
)
def test_torch_is_asked_in_a_process_of_its_own(
    code: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_probe, "_OPENING", code)
    assert obstacle_to_gpu() == said


# -- other makers' GPUs ----------------------------------------------------------------------------


def test_the_first_worker_has_the_gpu_that_the_config_names(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch)  # ROCm
    _, facts = run_on(config_with(devices=[2, 1]))
    assert [worker.pin for worker in started] == [None, "2", "1"]  # the one before it saw them all
    assert facts.device_count == 2


def test_hips_own_variable_goes_before_cudas(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(FakeProcess, "devices_without_pin", 2)
    run_on(config_with())
    assert [worker.extra.get("HIP_VISIBLE_DEVICES") for worker in started] == [None, "5"]
    assert {worker.pin for worker in started} == {None}


def test_a_mac_has_one_worker(started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "device", "mps")
    fake_gpus(monkeypatch)
    executor, _ = run_on(config_with(workers_per_gpu="auto"))
    assert executor.settings.workers == 1
    assert [(worker.pin, worker.memory) for worker in started] == [(None, NO_MEMORY)]


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
