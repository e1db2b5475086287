"""The memory that this process keeps from the system."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Return freed memory to the system. glibc keeps as much of it as a job happened to leave in
    its arenas (a third of a small encoder's worker), so that workers would seem to grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
