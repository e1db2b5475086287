"""The memory of this process: freed memory returned to the system, and how far it grows."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.0005
"""Between two looks at the resident set, where the kernel does not keep its peak."""

_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


def return_freed_memory() -> None:
    """Return freed memory to the system. glibc keeps in its arenas what a job happened to leave
    there (a third of a small encoder's worker), so that workers would seem to grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak_growth(work: Callable[[], object]) -> int:
    """How many bytes the resident set grows at most while `work` runs, from where it is when all
    unused memory has been returned."""
    gc.collect()
    return_freed_memory()
    before = psutil.Process().memory_info().rss
    if not _forget_peak():
        return _watched(work) - before
    work()
    return _peak() - before


def _forget_peak() -> bool:
    """Have the kernel keep the peak from now on (proc(5), clear_refs). False where it does not."""
    try:
        _REFERENCES.write_text("5", encoding="ascii")
        return _PEAK.search(_STATUS.read_text(encoding="ascii")) is not None
    except OSError:
        return False


def _peak() -> int:
    match = _PEAK.search(_STATUS.read_text(encoding="ascii"))
    return 1024 * int(match[1]) if match else 0


def _watched(work: Callable[[], object]) -> int:
    """The highest resident set that a thread sees while `work` runs."""
    process = psutil.Process()
    highest = process.memory_info().rss
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
    return highest
