"""Figures that are measured, not computed: P4 `memory`, and `latency_ms`.

Both are of one and the same work for every genome, done several times; the median counts, and the
spread, the distance of the quartiles, is kept beside it: what lies no further apart than that is
not told apart (`search.pareto.as_minimised`).

`memory`, to be minimised: the peak, in bytes, while the validation batch with the most tokens is
scored. On CUDA the allocator's peak of what is allocated, base and adapter included; elsewhere the
growth of the process's resident set over what it is just before.

`latency_ms`, to be minimised: the time to score one batch, the first validation rows in their
order, after a warm-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch

from coralx.config.metrics import SPREAD
from coralx.resident import give_back

MEMORY_REPEATS = 5
LATENCY_WARM_UP = 3
LATENCY_REPEATS = 20
LATENCY_ROWS = 8

SAMPLE_SECONDS = 0.0005
"""How often the resident set is looked at."""

Work = Callable[[], object]


def memory(work: Work, device: torch.device) -> dict[str, float]:
    """`memory` of `work`, with its spread. Once is done before, for what is made at first use."""
    work()
    peak = _cuda_peak if device.type == "cuda" else _resident_growth
    return _median("memory", [peak(work) for _ in range(MEMORY_REPEATS)])


def latency(work: Work, device: torch.device) -> dict[str, float]:
    """`latency_ms` of `work`, with its spread."""
    for _ in range(LATENCY_WARM_UP):
        work()
    times = []
    for _ in range(LATENCY_REPEATS):
        _finish(device)
        began = time.perf_counter()
        work()
        _finish(device)
        times.append(1000.0 * (time.perf_counter() - began))
    return _median("latency_ms", times)


def _finish(device: torch.device) -> None:
    """Wait for what the device is still doing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _median(name: str, values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {name: float(middle), name + SPREAD: float(high - low)}


def _cuda_peak(work: Work) -> float:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated())


def _resident_growth(work: Work) -> float:
    """How far the resident set grows while `work` is done. A thread looks at it: the kernel's own
    peak is that of the whole process so far."""
    give_back()
    process = psutil.Process()
    before = highest = process.memory_info().rss
    done = threading.Event()

    def look() -> None:
        nonlocal highest
        while not done.wait(SAMPLE_SECONDS):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return float(highest - before)
