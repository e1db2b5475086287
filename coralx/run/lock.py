"""One process owns a run: a file lock that the kernel drops with its holder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from coralx.errors import SetupError
from coralx.files import write_atomically
from coralx.run.layout import RunLayout


@contextmanager
def owning(layout: RunLayout) -> Iterator[None]:
    """Hold the run's lock. Raises SetupError naming the pid and host that hold it already."""
    lock = FileLock(layout.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SetupError(
            f"run {layout.name!r} is in use by {_owner(layout)}",
            "Wait for it to end, or stop that process.",
        ) from None
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        write_atomically(layout.owner, json.dumps(owner) + "\n")
        yield
    finally:
        layout.owner.unlink(missing_ok=True)
        lock.release()


def _owner(layout: RunLayout) -> str:
    try:
        owner = json.loads(layout.owner.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
