"""Tensors kept by key: as many as are allowed in memory, the others in a file without a name.

The file is unlinked as soon as it is open, so that nothing of it is left however the process ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Hashable
from io import FileIO
from pathlib import Path

import torch

LEFT_FREE = 1 << 30
"""Bytes of the disk that others need more urgently: checkpoints are written while this grows."""

LASTING = Path("/var/tmp")  # noqa: S108  nothing there is named
"""Temporary files on a disk, where the usual folder may be held in memory."""


class PrefixCache:
    """Keeps what it can; a tensor that it does not have is to be computed again."""

    def __init__(self, memory_bytes: int) -> None:
        self._room = memory_bytes
        self._held: dict[Hashable, torch.Tensor] = {}
        self._file: FileIO | None = None
        self._places: dict[Hashable, tuple[int, torch.Size, torch.dtype]] = {}
        self._end = 0
        self._is_full = False

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The tensor, on the CPU; not to be changed."""
        held = self._held.get(key)
        if held is not None or key not in self._places or self._file is None:
            return held
        start, shape, dtype = self._places[key]
        read = bytearray(shape.numel() * dtype.itemsize)
        try:
            self._file.seek(start)
            is_whole = self._file.readinto(read) == len(read)
        except OSError:  # as below
            is_whole = False
        return torch.frombuffer(read, dtype=dtype).view(shape) if is_whole else None

    def put(self, key: Hashable, tensor: torch.Tensor) -> None:
        """Keep a tensor, which is on the CPU, if there is room for it."""
        size = tensor.numel() * tensor.element_size()
        if size <= self._room:
            self._held[key] = tensor
            self._room -= size
        elif not self._is_full:
            self._spill(key, tensor.contiguous())

    def _spill(self, key: Hashable, tensor: torch.Tensor) -> None:
        try:
            if self._file is None:
                # Without a buffer: what a full disk refuses is refused here, not at a later read.
                self._file = tempfile.TemporaryFile(dir=_folder(), buffering=0)  # noqa: SIM115
            if shutil.disk_usage(_folder() or tempfile.gettempdir()).free < LEFT_FREE:
                self._is_full = True
                return
            self._file.seek(self._end)
            values = tensor.view(torch.uint8).numpy().tobytes()
            if self._file.write(values) < len(values):  # of a disk that has room for a part
                self._is_full = True
                return
        except OSError:  # it is but a cache
            self._is_full = True
            return
        self._places[key] = self._end, tensor.shape, tensor.dtype
        self._end += len(values)


def _folder() -> Path | None:
    """Where the file is; None: where temporary files usually are, which `TMPDIR` decides."""
    is_told = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return None if is_told or not os.access(LASTING, os.W_OK) else LASTING
