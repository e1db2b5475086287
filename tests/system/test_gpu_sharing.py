"""Several workers a GPU: how many, and what each may use of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coralx.config import Config
from coralx.errors import ConfigError, SetupError
from coralx.execution import gpu_sharing, local, placement, preflight
from coralx.execution.gpu_findings import remember
from coralx.execution.local import LocalExecutor
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Footprint, Settings
from coralx.storage.machine_time import gpus_in_use
from coralx.system.gpus import visible_gpus
from tests.support.factories import make_config, make_facts
from tests.support.fake_workers import FakeProcess, config_with, run_on
from tests.support.gpus import GIB, fake_gpus


def test_workers_of_each_gpu_share_it(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 24)
    executor, facts = run_on(config_with(workers_per_gpu=2))
    assert [worker.pin for worker in started] == ["GPU-0a-0b", "GPU-1a-1b"] * 2
    assert executor.settings.workers == 4
    assert facts.device_count == gpus_in_use(facts, executor.settings.workers) == 2
    assert started[0].memory == DeviceMemory(24 * GIB, 12 * GIB, sharing=2)


def test_no_more_workers_than_genomes_share_gpus(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80, 80, 80)
    executor, _ = run_on(config_with(workers_per_gpu=4))  # for 8 genomes
    assert executor.settings.workers == 8
    assert {worker.memory.sharing for worker in started[:1]} == {3}


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[DeviceMemory]:
    """The memories for which a base of 2 GiB, all in all, is described; 16 cores."""
    asked: list[DeviceMemory] = []

    def describe(config: Config, memory: DeviceMemory, interruption: object = None) -> Footprint:  # noqa: ARG001
        asked.append(memory)
        return replace(BASE, device_bytes=memory.share_bytes, sharing=memory.sharing)

    for module in (local, preflight):
        monkeypatch.setattr(module, "described_base", describe)
    monkeypatch.setattr(gpu_sharing, "cores", lambda: 16)
    return asked


BASE = Footprint(
    base_parameters=1, base_bytes=2 * GIB, hidden_size=1, intermediate_size=1, layers=1, linear=()
)


@pytest.mark.parametrize(
    ("gigabytes", "changes", "each"),
    [
        ((24,), {}, 3),  # 12 GiB are free, of which 10.2 are to be filled with 2.6 each
        ((80,), {}, 4),  # nobody has measured how many pay
        ((80,), {"evolution": {"population_size": 3}}, 3),
        ((80, 80), {"evolution": {"population_size": 5}}, 3),
        ((4,), {}, 1),
        ((80,), {"objectives": [{"metric": "auroc"}, {"metric": "latency_ms"}]}, 1),
    ],
)
def test_as_many_workers_share_a_gpu_as_fit_and_are_of_use(
    gigabytes: tuple[float, ...],
    changes: dict[str, Any],
    each: int,
    started: list[FakeProcess],
    described: list[DeviceMemory],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_gpus(monkeypatch, *gigabytes)
    config = make_config(
        **{"evolution": {"population_size": 8}, **changes}, runtime={"workers_per_gpu": "auto"}
    )
    executor, _ = run_on(config)
    most = min(each * len(gigabytes), config.evolution.population_size)
    assert executor.settings.workers == most
    assert started[0].memory.sharing == each
    assert all(memory.sharing == 1 for memory in described)


@pytest.mark.parametrize(
    ("each", "sharing", "free"), [(1, 1, [12]), (2, 2, [6]), ("auto", 3, [12])]
)
def test_the_doctor_shares_a_gpu_as_a_run_would(
    each: object,
    sharing: int,
    free: list[int],
    described: list[DeviceMemory],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_gpus(monkeypatch, 24)
    found = preflight.footprint_of_base(config_with(workers_per_gpu=each))
    assert (found.sharing, found.device_bytes) == (sharing, 24 * GIB // sharing)
    assert [memory.free_share_bytes // GIB for memory in described] == free


def test_where_there_is_no_gpu_the_doctor_shares_none(
    described: list[DeviceMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch)
    assert preflight.footprint_of_base(config_with(workers_per_gpu="auto")) == BASE
    assert described == [NO_MEMORY]


@pytest.mark.parametrize("found", [1, 2, 6])
def test_no_more_workers_share_a_gpu_than_the_check_found_best(
    found: int,
    started: list[FakeProcess],
    described: list[DeviceMemory],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake_gpus(monkeypatch, 80)
    config = config_with(workers_per_gpu="auto")
    remember(visible_gpus()[0], config, found)
    executor, _ = run_on(config)
    assert executor.settings.workers == started[0].memory.sharing == found
    assert len(described) == (found > 1)  # what one worker needs is of no interest
    fake_gpus(monkeypatch, 24)  # another card, of which nothing was found
    again, _ = run_on(config)
    assert again.settings.workers == 3


def test_the_cores_bound_the_workers_of_a_gpu(
    started: list[FakeProcess], described: list[DeviceMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80)
    monkeypatch.setattr(gpu_sharing, "cores", lambda: 2)
    executor, _ = run_on(config_with(workers_per_gpu="auto"))
    assert (executor.settings.workers, len(described)) == (2, 1)
    assert started[0].memory.sharing == 2


def test_a_resumed_run_has_the_workers_of_the_machine_that_it_is_on(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80)
    recorded = Settings(4, 3, "bf16", checkpointing=True)  # on four GPUs
    executor = LocalExecutor("peft")
    executor.start(config_with(), recorded, lambda signal: None)  # noqa: ARG005
    assert executor.settings.workers == 1
    assert executor.settings.threads_per_worker == 3
    assert started[0].checkpointing is True
    named = LocalExecutor("peft")
    named.start(config_with(workers=4), recorded, lambda signal: None)  # noqa: ARG005
    assert named.settings.workers == started[-1].memory.sharing == 4


@pytest.mark.usefixtures("started")
def test_workers_that_shared_gpus_are_not_too_many_for_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    monkeypatch.setattr(placement, "cores", lambda: 2)
    monkeypatch.setattr(placement, "memory", lambda: SimpleNamespace(free_bytes=64 << 30))
    fake_gpus(monkeypatch)
    kept = {}
    for began, config in ((32, config_with()), (1, config_with()), (32, config_with(workers=32))):
        executor = LocalExecutor("peft")
        executor.start(config, Settings(began, 3, "fp32"), lambda signal: None)  # noqa: ARG005
        assert executor.settings.threads_per_worker == 3
        kept[began, config.runtime.workers] = executor.settings.workers
    assert kept == {(32, "auto"): 2, (1, "auto"): 1, (32, 32): 32}


def test_every_worker_takes_the_decision_of_the_first(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(monkeypatch, 80)
    facts = replace(make_facts(), device="cuda", footprint=replace(BASE, checkpointing=True))
    monkeypatch.setattr(FakeProcess, "facts", lambda self: facts)  # noqa: ARG005
    executor, _ = run_on(config_with(workers_per_gpu=2), jobs=2)
    for _ in executor._outcomes(0.0):
        pass
    assert executor.settings.checkpointing is True
    assert [worker.checkpointing for worker in started] == [None, True]


@pytest.mark.usefixtures("started")
def test_a_gpu_for_one_process_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 80, exclusive=True)
    with pytest.raises(SetupError, match="EXCLUSIVE_PROCESS"):
        run_on(config_with(workers_per_gpu=2))
    executor, _ = run_on(config_with(workers_per_gpu="auto"))
    assert executor.settings.workers == 1


def test_a_cpu_takes_no_notice_of_workers_per_gpu(
    started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProcess, "device", "cpu")
    fake_gpus(monkeypatch)
    one, _ = run_on(config_with())
    several, _ = run_on(config_with(workers_per_gpu="auto"))
    assert one.settings == several.settings
    assert {worker.memory for worker in started} == {NO_MEMORY}


@pytest.mark.parametrize("each", [2, "auto"])
def test_workers_are_counted_once(each: object) -> None:
    with pytest.raises(ConfigError, match="set one of them") as caught:
        config_with(workers=4, workers_per_gpu=each)
    assert "`workers: 4`" in str(caught.value.problems)
    assert f"`workers_per_gpu: {each}`" in str(caught.value.problems)
    with pytest.raises(ConfigError, match="in-process"):
        config_with(executor="in-process", workers_per_gpu=each)
    assert config_with(workers=4, workers_per_gpu=1).runtime.workers == 4
