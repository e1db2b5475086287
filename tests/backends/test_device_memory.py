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
from coralx.backends.memory_estimate import extremes
from coralx.config import Config
from coralx.records.events import RunStarted
from coralx.records.run_facts import DeviceMemory, Footprint, Settings, decided
from coralx.report.opening import opening_lines
from coralx.search.space import space_of
from coralx.text import GIB
from tests.support.factories import make_config, make_facts

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


def test_what_unsloths_kernels_do_not_train_may_take_most() -> None:
    linear = tuple((f"layers.0.{name}", 2048, 2048) for name in (*"qkvo", "q_proj", "v_proj"))
    fused = replace(LLAMA_1B, linear=linear, fused=True)
    choices: list[object] = ["all-linear", ["q_proj", "v_proj"]]
    whole, both = (
        tuning(search_space={"target_modules": {"choices": chosen}})
        for chosen in (choices[:1], choices)
    )
    assert bytes_of_worker(both, fused) > bytes_of_worker(whole, fused)
    _, largest = extremes(space_of(both), fused, 512)
    assert largest.target_modules == "all-linear"  # what is tried, and counted on the disk


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


def test_what_a_gpu_decided_is_kept_with_the_settings() -> None:
    footprint = replace(LLAMA_1B, checkpointing=True)
    facts = replace(make_facts(), device="cuda:0", precision="bf16", footprint=footprint)
    settings = Settings(2, 1, "")  # as of a version that did not record it
    assert decided(settings, facts) == Settings(2, 1, "bf16", checkpointing=True)
    on_a_cpu = replace(facts, device="cpu")
    assert decided(settings, on_a_cpu).checkpointing is None
    assert decided(settings, replace(facts, footprint=None)).checkpointing is None


def test_a_run_says_how_it_uses_a_gpu() -> None:
    footprint = replace(LLAMA_1B, checkpointing=True, sharing=2)
    facts = replace(
        make_facts(), device="cuda", footprint=footprint, checkpointing_reason="it needs it"
    )
    event = RunStarted(1, "x", "hyperband", 7, facts, Settings(2, 3, "bf16"), {}, {}, 20.0)
    config = make_config()
    lines = opening_lines(config, event)
    assert "on cuda, 2 workers with 3 threads each, 2 to a GPU" in lines[0]
    assert lines[2] == "gradient checkpointing on: it needs it"
    silent = replace(event, facts=replace(make_facts(), footprint=LLAMA_1B))
    assert not any(
        "GPU" in line or "checkpointing" in line for line in opening_lines(config, silent)
    )


def test_a_share_is_never_more_than_what_is_there() -> None:
    known, own = DeviceMemory(24 * GIB, 20 * GIB, 2), DeviceMemory(80 * GIB, 10 * GIB)
    assert known.at_most(own) == DeviceMemory(24 * GIB, 10 * GIB, 2)
    assert DeviceMemory(sharing=2).at_most(own) == replace(own, sharing=2)
    assert known.share_bytes == 12 * GIB
    assert known.free_share_bytes == 10 * GIB
