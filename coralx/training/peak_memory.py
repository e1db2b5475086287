"""The most that a CUDA GPU's allocator held."""

from __future__ import annotations

import torch


def reset() -> None:
    """Count anew from what is held now."""
    if _is_used():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int | None:
    """The peak since `reset`; None where nothing runs on a CUDA GPU."""
    return torch.cuda.max_memory_allocated() if _is_used() else None


def _is_used() -> bool:
    """Whether this process has opened a GPU; asking does not open one."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
