"""One process owns a run: a file lock that the kernel drops with its holder."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from filelock import FileLock, Timeout

from coralx.errors import SetupError, UsageError
from coralx.files import storing, write_atomically
from coralx.run.layout import RUNS, RunLayout, is_run, refuse_taken

BEAT_SECONDS = 10.0


@dataclass(frozen=True)
class Stint:
    """When a process that was killed owned the run, as far as is known: seconds since the epoch."""

    since: float = 0.0
    until: float = 0.0

    def after(self, moment: float) -> float:
        """How many of its seconds came after `moment`."""
        return max(0.0, self.until - max(self.since, moment))


@contextmanager
def owning(layout: RunLayout) -> Iterator[Stint]:
    """Hold the run's lock; yields the stint of an owner that did not come to let go of it.

    Raises SetupError naming the pid and host that hold it already.
    """
    lock = _try_to_lock(layout)
    if lock is None:
        raise SetupError(
            f"run {layout.name!r} is in use by {_owner(layout)}",
            "Wait for it to end, or stop that process.",
        )
    killed = _left_behind(layout)
    with _held(layout, lock):
        yield killed


def beat(layout: RunLayout) -> None:
    """The owner is at work still: should it be killed, its time counts up to here. Told often, it
    notes so every `BEAT_SECONDS`."""
    now = time.time()
    with contextlib.suppress(OSError):
        if now - layout.owner.stat().st_mtime >= BEAT_SECONDS:
            os.utime(layout.owner, (now, now))


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
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
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


def _left_behind(layout: RunLayout) -> Stint:
    """The stint that the note of a killed owner tells of; an empty one where there is none."""
    try:
        owner = json.loads(layout.owner.read_text(encoding="utf-8"))
        return Stint(float(owner["since"]), layout.owner.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return Stint()
