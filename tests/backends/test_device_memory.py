"""What a GPU's memory decides: gradient checkpointing by need, and how many workers share it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coralx.backends.device_memory import (
    CONTEXT_BYTES,
    USABLE,
    bytes_of_worker,
    checkpointing_by_need,
    workers_that_fit,
)
from coralx.config import Config
from coralx.records.run_facts import DeviceMemory, Footprint
from coralx.text import GIB
from tests.support.factories import make_config

LLAMA_1B = Footprint(
    base_parameters=1_200_000_000,
    base_bytes=2_400_000_000,
    hidden_size=2048,
    intermediate_size=8192,
    layers=16,
    linear=tuple((f"layers.{n}.q_proj", 2048, 2048) for n in range(16)),
    activation_bytes=2,
)


def tuning(setting: object = "auto", task: str = "sft", **sections: Any) -> Config:
    sections.setdefault("search_space", {"batch_size": {"choices": [4, 16]}})
    return make_config(
        model={"base": "x", "task": task, "max_length": 512},
        runtime={"gradient_checkpointing": setting},
        **sections,
    )


def memory(free: float, sharing: int = 1) -> DeviceMemory:
    return DeviceMemory(80 * GIB, int(free), sharing)


def test_checkpointing_is_off_where_the_largest_genome_fits_without() -> None:
    config = tuning()
    needed = bytes_of_worker(config, LLAMA_1B)
    assert needed > CONTEXT_BYTES + LLAMA_1B.base_bytes
    enough, short = memory(needed / USABLE + 1), memory(needed / USABLE - 10)
    without = checkpointing_by_need(config, LLAMA_1B, enough, on_gpu=True)
    assert not without.is_on
    assert without.line.startswith("gradient checkpointing off: the largest genome takes ")
    recomputed = checkpointing_by_need(config, LLAMA_1B, short, on_gpu=True)
    assert recomputed.is_on
    assert "would take" in recomputed.line
    assert "are free" in recomputed.line


def test_the_largest_batch_of_the_search_space_counts() -> None:
    small = tuning(search_space={"batch_size": {"choices": [4]}})
    free = memory(bytes_of_worker(small, LLAMA_1B) / USABLE + 1)
    assert not checkpointing_by_need(small, LLAMA_1B, free, on_gpu=True).is_on
    assert checkpointing_by_need(tuning(), LLAMA_1B, free, on_gpu=True).is_on


def test_workers_of_one_gpu_decide_by_their_share_of_it() -> None:
    config = tuning()
    free = bytes_of_worker(config, LLAMA_1B) / USABLE + 1
    assert not checkpointing_by_need(config, LLAMA_1B, memory(2 * free, 2), on_gpu=True).is_on
    shared = checkpointing_by_need(config, LLAMA_1B, memory(2 * free, 3), on_gpu=True)
    assert shared.is_on
    assert "for each of 3 workers" in shared.reason


@pytest.mark.parametrize("setting", [True, False])
def test_what_the_config_says_is_done(setting: bool) -> None:
    for free in (1, 70 * GIB):
        decided = checkpointing_by_need(tuning(setting), LLAMA_1B, memory(free), on_gpu=True)
        assert decided.is_on == setting


def test_a_cpu_never_checkpoints_by_itself() -> None:
    decided = checkpointing_by_need(tuning(), LLAMA_1B, DeviceMemory(), on_gpu=False)
    assert not decided.is_on
    assert decided.reason == ""


@pytest.mark.parametrize(
    ("task", "is_on"), [("sft", True), ("label-tokens", True), ("sequence-classification", False)]
)
def test_of_an_unknown_memory_language_models_fear_the_worst(task: str, is_on: bool) -> None:
    decided = checkpointing_by_need(tuning(task=task), LLAMA_1B, DeviceMemory(), on_gpu=True)
    assert decided.is_on == is_on


def test_as_many_workers_fit_as_hold_the_largest_genome_each() -> None:
    config = tuning()
    each = bytes_of_worker(config, LLAMA_1B) / USABLE
    assert workers_that_fit(config, LLAMA_1B, memory(3.5 * each)) == 3
    assert workers_that_fit(config, LLAMA_1B, memory(0.5 * each)) == 1
    # What fits together is not made to recompute.
    assert not checkpointing_by_need(config, LLAMA_1B, memory(3.5 * each, 3), on_gpu=True).is_on
    recomputing = workers_that_fit(tuning(True), LLAMA_1B, memory(3.5 * each))
    assert recomputing > 3


def test_a_share_is_never_more_than_what_is_there() -> None:
    known, own = DeviceMemory(24 * GIB, 20 * GIB, 2), DeviceMemory(80 * GIB, 10 * GIB)
    assert known.at_most(own) == DeviceMemory(24 * GIB, 10 * GIB, 2)
    assert DeviceMemory(sharing=2).at_most(own) == replace(own, sharing=2)
    assert known.share_bytes == 12 * GIB
    assert known.free_share_bytes == 10 * GIB
