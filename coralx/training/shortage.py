"""Running out of memory: recognised, and met by working on fewer rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from coralx.errors import OutOfMemory

Part = TypeVar("Part")


def is_shortage(error: Exception) -> bool:
    """Whether the error says that memory ran out, on whatever device."""
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def free() -> None:
    """Give back what a failed attempt still holds. To be called outside of the `except` block,
    since the traceback keeps the attempt's tensors alive."""
    clear_device_cache(garbage_collection=True)


def smaller(rows: int) -> int:
    """How many rows to try instead of so many. Raises OutOfMemory where one was too much."""
    if rows <= 1:
        raise OutOfMemory(
            "out of memory, with a single row at a time",
            "A shorter model.max_length, smaller ranks or runtime.quantization: 4bit need less.",
        )
    return (rows + 1) // 2


def in_parts(work: Callable[[list[int]], Part], rows: Sequence[int]) -> list[Part]:
    """`work` done on all rows together or, where memory does not suffice, on as many as fit; what
    it returned, in order. Raises OutOfMemory where a single row does not fit."""
    try:
        return [work(list(rows))]
    except Exception as error:
        if not is_shortage(error):
            raise
    free()
    half = smaller(len(rows))
    return [*in_parts(work, rows[:half]), *in_parts(work, rows[half:])]


@contextmanager
def refusing() -> Iterator[None]:
    """Turn a shortage that no smaller batch helps against into OutOfMemory."""
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    else:
        return
    free()
    raise OutOfMemory(f"out of memory: {reason}")
