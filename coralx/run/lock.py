"""One process owns a run: a file lock that the kernel drops with its holder."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from coralx.errors import SetupError, UsageError
from coralx.files import storing, write_atomically
from coralx.run.layout import RUNS, RunLayout, is_run, refuse_taken


@contextmanager
def owning(layout: RunLayout) -> Iterator[None]:
    """Hold the run's lock. Raises SetupError naming the pid and host that hold it already."""
    lock = _try_to_lock(layout)
    if lock is None:
        raise SetupError(
            f"run {layout.name!r} is in use by {_owner(layout)}",
            "Wait for it to end, or stop that process.",
        )
    with _held(layout, lock):
        yield


@contextmanager
def claiming(name: str, *, chosen: bool) -> Iterator[RunLayout]:
    """Make the folder of a new run and hold its lock.

    A `chosen` name that is taken raises UsageError; another one gets the next free number behind
    it, also while a process beside this one takes numbers. A folder without a complete first event
    is no run yet, and its name can be taken.
    """
    for number in itertools.count(1):
        layout = RunLayout(RUNS / (name if number == 1 else f"{name}-{number}"))
        if is_run(layout.root):
            if chosen:
                refuse_taken(name)
            continue
        with storing(layout.root):
            layout.root.mkdir(parents=True, exist_ok=True)
        lock = _try_to_lock(layout)
        if lock is None or is_run(layout.root):  # another process was quicker
            if lock is not None:
                lock.release()
            if chosen:
                raise UsageError(f"a run named {name!r} is being made by {_owner(layout)}")
            continue
        with _held(layout, lock):
            yield layout
        return


def holder(layout: RunLayout) -> str | None:
    """The process that holds the run's lock, by pid and host; None where none does, or the system
    does not tell. Nothing is written: a shared lock is tried on the file as it is."""
    try:
        import fcntl  # POSIX alone has it
    except ImportError:
        return None
    try:
        with layout.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(layout)
    except OSError:  # no such file
        return None
    return None


def _try_to_lock(layout: RunLayout) -> FileLock | None:
    lock = FileLock(layout.lock, timeout=0)
    try:
        with storing(layout.lock):
            lock.acquire()
    except Timeout:
        return None
    return lock


@contextmanager
def _held(layout: RunLayout, lock: FileLock) -> Iterator[None]:
    """Write down who holds the lock; let it go at the end."""
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        write_atomically(layout.owner, json.dumps(owner) + "\n")
        yield
    finally:
        with suppress(OSError):  # a note without a lock says nothing
            layout.owner.unlink(missing_ok=True)
        lock.release()


def _owner(layout: RunLayout) -> str:
    try:
        owner = json.loads(layout.owner.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
