"""Running out of memory: recognised, and met by working on fewer rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache

from coralx.errors import OutOfMemory

Part = TypeVar("Part")

SIGNS = (
    "out of memory",  # CUDA, HIP, XPU, MPS, Triton
    "can't allocate memory",  # torch on a CPU
    "alloc_failed",  # cuBLAS, cuDNN
    "could not create a primitive",  # oneDNN, which gives no reason
    "could not create a memory",
)
"""What libraries say where memory runs out, in small letters."""

LESS_MEMORY = (
    "A shorter model.max_length, smaller ranks in search_space.rank or "
    "runtime.quantization: 4bit need less memory."
)
"""The way out where a smaller batch is not."""


def is_shortage(error: Exception) -> bool:
    """Whether the error says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def free() -> None:
    """Give back what a failed attempt still holds. To be called outside of the `except` block,
    since the traceback keeps the attempt's tensors alive."""
    clear_device_cache(garbage_collection=True)


def halved(rows: int, reason: str) -> int:
    """How many rows to try instead of so many. Raises OutOfMemory where one was too much."""
    if rows <= 1:
        raise OutOfMemory(f"out of memory, with a single row at a time: {reason}", LESS_MEMORY)
    return (rows + 1) // 2


def in_parts(work: Callable[[list[int]], Part], rows: Sequence[int]) -> list[Part]:
    """`work` done on all rows together or, where memory does not suffice, on as many as fit; what
    it returned, in order. Raises OutOfMemory where a single row does not fit."""
    try:
        return [work(list(rows))]
    except Exception as error:
        if not is_shortage(error):
            raise
        reason = reason_of(error)
    free()
    half = halved(len(rows), reason)
    return [*in_parts(work, rows[:half]), *in_parts(work, rows[half:])]


@contextmanager
def raising_out_of_memory() -> Iterator[None]:
    """Turn a library's error that memory ran out into OutOfMemory: around work that a smaller batch
    makes no smaller, such as adding an adapter."""
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        reason = reason_of(error)
    else:
        return
    free()
    raise OutOfMemory(f"out of memory: {reason}", LESS_MEMORY)


def reason_of(error: Exception) -> str:
    """The first line of an error's text, or its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
