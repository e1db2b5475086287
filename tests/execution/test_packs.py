"""Jobs that a worker does together: which ones, and what becomes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from coralx.errors import ConfigError
from coralx.execution import local
from coralx.execution.local import LocalExecutor
from coralx.execution.messages import (
    Failed,
    Order,
    Prepare,
    Reply,
    Train,
    TrainingDone,
    TrainPack,
    decode_order,
    encode,
)
from coralx.execution.packs import Pack, left_of, next_work, wanted_pack
from coralx.records.events import AttemptFailed
from coralx.records.genomes import Genes
from coralx.records.jobs import Horizon, Job, MeasureJob
from coralx.records.run_facts import Facts, Settings
from tests.support.factories import make_config, make_genome, make_result
from tests.support.fake_workers import FakeProcess


def job(name: str, last: int = 50, **genes: Any) -> Job:
    return Job(make_genome(name, Genes(**genes)), "S0", 0, last, Horizon(100, 0), 1.0, None)


def taken(
    jobs: Sequence[Any], most: int, workers: int = 1, failed: Sequence[str] = ()
) -> list[list[str]]:
    """The ids of what is done together, work after work."""
    waiting, works = deque(jobs), []
    while waiting:
        work = next_work(waiting, most, workers, lambda one: one.genome.id not in failed)
        works.append([one.genome.id for one in (work.jobs if isinstance(work, Pack) else [work])])
    return works


A, B, C, D = (job(name) for name in "abcd")


@pytest.mark.parametrize(
    ("jobs", "most", "workers", "expected"),
    [
        ([A, B, C], 1, 1, [["a"], ["b"], ["c"]]),
        ([A, B, C], 2, 1, [["a", "b"], ["c"]]),
        # All workers that are free get their share.
        ([A, B, C, D], 4, 2, [["a", "b"], ["c"], ["d"]]),
        ([A, B, C, D], 4, 1, [["a", "b", "c", "d"]]),
        # Only what reads the same rows at the same steps, with adapters that can be stacked.
        ([A, job("x", batch_size=4), B], 4, 1, [["a", "b"], ["x"]]),
        ([A, job("x", last=60), B], 4, 1, [["a", "b"], ["x"]]),
        ([job("x", use_dora=True), A, B], 4, 1, [["x"], ["a", "b"]]),
        ([A, job("x", target_modules=()), B], 4, 1, [["a", "b"], ["x"]]),
        ([A, replace(B, micro_batch=4), C], 4, 1, [["a", "c"], ["b"]]),
        ([A, replace(B, data_fraction=0.5)], 4, 1, [["a"], ["b"]]),
        ([A, replace(B, stage="S1")], 4, 1, [["a"], ["b"]]),
        ([A, A], 4, 1, [["a"], ["a"]]),
        ([MeasureJob(A.genome, None), A], 4, 1, [["a"], ["a"]]),
    ],
)
def test_what_is_done_together(
    jobs: list[Any], most: int, workers: int, expected: list[list[str]]
) -> None:
    assert taken(jobs, most, workers) == expected


def test_what_has_failed_is_done_alone() -> None:
    assert taken([A, B, C], 4, failed=["b"]) == [["a", "c"], ["b"]]


def test_outcomes_are_taken_off_a_pack() -> None:
    pack = left_of(Pack((A, B)), make_result("a"))
    assert pack == Pack((B,))
    assert left_of(pack, make_result("b")) is None
    assert left_of(A, make_result("a")) is None


def test_the_order_to_train_a_pack_survives_the_pipe() -> None:
    assert decode_order(encode(TrainPack((A, B)))) == TrainPack((A, B))


@pytest.mark.parametrize(
    ("runtime", "backend", "expected"),
    [
        ({}, "peft", None),
        ({}, "unsloth", 1),
        ({"pack": 4}, "peft", 4),
        ({"pack": 1}, "peft", 1),
        ({"pack": 4}, "simulated", 1),
    ],
)
def test_what_the_first_worker_finds_out(
    runtime: dict[str, Any], backend: str, expected: int | None
) -> None:
    config = make_config(runtime=runtime)
    assert wanted_pack(config, backend, None) == expected
    assert wanted_pack(config, backend, Settings(1, 1, "fp32", pack=8)) == 8


def test_packs_disturb_what_is_measured_of_a_model_in_memory() -> None:
    objectives = [
        {"metric": "auroc", "direction": "maximize"},
        {"metric": "memory", "direction": "minimize"},
    ]
    assert wanted_pack(make_config(objectives=objectives), "peft", None) == 1


@pytest.mark.parametrize(
    ("runtime", "named"),
    [
        ({"pack": 2, "backend": "unsloth"}, "`pack: 2` needs PEFT"),
        ({"pack": 2, "executor": "in-process"}, "`pack: 2` needs worker processes"),
        ({"pack": 0}, "runtime.pack"),
    ],
)
def test_configs_that_cannot_pack(runtime: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(runtime=runtime)
    assert named in str(caught.value) + " ".join(caught.value.problems)


class Packing(FakeProcess):
    """A worker that trains packs of two, and fails of each once its first genome is done."""

    device = "cpu"
    orders: ClassVar[list[Order]] = []
    prepared: ClassVar[list[int | None]] = []

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.began = self.spawned = 0.0

    def facts(self) -> Facts:
        return replace(super().facts(), backend="peft", pack=2, pack_reason="a test")

    def send(self, order: Order) -> None:
        super().send(order)
        if isinstance(order, Prepare):
            self.prepared.append(order.pack)
            return
        self.orders.append(order)
        match order:
            case TrainPack(jobs=(first, *_)):
                self.replies += [_done(first), Failed("RuntimeError", "odd", "", False, "")]
            case Train(job=one):
                self.replies.append(_done(one))

    def end_of_log(self) -> str:
        return ""


def _done(one: Job) -> Reply:
    return TrainingDone(make_result(one.genome.id))


def test_what_a_failed_pack_leaves_is_trained_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Packing.orders.clear()
    Packing.prepared.clear()
    monkeypatch.setattr(local, "WorkerProcess", Packing)
    heard: list[Any] = []
    executor = LocalExecutor("peft")
    config = make_config(runtime={"workers": 1, "pack": 3})
    executor.start(config, None, heard.append)
    assert executor.settings.pack == 2
    outcomes = list(executor.run([A, B, C]))
    assert [outcome.genome for outcome in outcomes] == ["a", "b", "c"]
    assert Packing.orders == [TrainPack((A, B)), Train(B), Train(C)]
    # The worker that failed was replaced; there was nothing left to find out.
    assert Packing.prepared == [3, 1]
    failed = [said for said in heard if isinstance(said, AttemptFailed)]
    assert [said.genome for said in failed] == ["b"]
