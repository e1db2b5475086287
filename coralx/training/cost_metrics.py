"""Figures that are measured, not computed: P4 `memory`, and `latency_ms`.

Both are of one and the same work for every genome, done several times; the median counts. Its
spread is recorded, too: figures that are no further apart than that count as equal
(`search.pareto.as_minimised`).

`memory`, to be minimised: the peak, in bytes, while the validation batch with the most tokens is
scored. Its spread is the range, as a process's heap varies more from time to time than at one.

On CUDA it is the base, the adapter, and what the allocator's peak adds to what is allocated just
before. What else lies there belongs to no genome: buffers as large as any earlier genome's largest
batch, and at a stage's end, but not where a finished adapter is measured, the optimizer's moments.
Elsewhere it is the growth of the process's resident set over what it is just before.

`latency_ms`, to be minimised: the time to score one batch, the first validation rows in their
order, after a warm-up. Its spread is the distance of the quartiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from coralx.config.metric_catalogue import SPREAD
from coralx.system.process_memory import peak_growth

MEMORY_WARM_UP = 2
MEMORY_REPEATS = 7
LATENCY_WARM_UP = 3
LATENCY_REPEATS = 20
LATENCY_ROWS = 8
"""Rows of the one batch whose time is taken."""

Work = Callable[[], object]


def memory(work: Work, device: torch.device, held: int = 0) -> dict[str, float]:
    """`memory` of `work`, with its spread; `held` are the bytes of the model that it runs on, which
    count on CUDA."""
    for _ in range(MEMORY_WARM_UP):  # for what is made at first use
        work()
    if device.type == "cuda":
        peaks = [held + _cuda_growth(work) for _ in range(MEMORY_REPEATS)]
    else:
        peaks = [peak_growth(work) for _ in range(MEMORY_REPEATS)]
    return _with_spread("memory", peaks, max(peaks) - min(peaks))


def held_bytes(model: torch.nn.Module, without: str) -> int:
    """Bytes of a model's weights and buffers, but for those of the adapter `without`."""
    named = (*model.named_parameters(), *model.named_buffers())
    return sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in named
        if without not in name.split(".")
    )


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
    low, high = np.percentile(times, [25, 75])
    return _with_spread("latency_ms", times, high - low)


def _finish(device: torch.device) -> None:
    """Wait for what the device is still doing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _with_spread(name: str, values: Sequence[float], spread: float) -> dict[str, float]:
    return {name: float(np.median(values)), name + SPREAD: float(spread)}


def _cuda_growth(work: Work) -> int:
    """How many bytes more than just before are allocated at most while `work` runs."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated()) - int(before)
