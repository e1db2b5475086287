"""One process owns a run: a file lock that the kernel drops with its holder."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from coralx.errors import SetupError, UsageError
from coralx.storage.layout import RUNS, RunLayout, is_free, is_run, refuse_taken
from coralx.system.files import translating_storage_errors, write_atomically

BEAT_SECONDS = 10.0
"""Between two notes of the owner: so much working time may be lost in a kill."""


@dataclass(frozen=True)
class WorkSpan:
    """How far a process had come that was killed, as far as is known."""

    after: int = -1
    """The number of the ledger's last event that it knew of; -1: there was none."""
    seconds: float = 0.0
    """How long it was at work after that event."""

    def lost(self, last: int) -> float:
        """How many of its seconds no event tells of, where the ledger ends with number `last`."""
        return self.seconds if self.after == last else 0.0


class Owner:
    """This process, which holds the run's lock, and the note that it leaves of itself.

    The note holds how long it was at work, rather than since when: a folder that is copied or
    restored, and a clock that is set, make it no longer. `killed` is the stint of an owner before
    it that did not come to let go of the run.
    """

    def __init__(self, layout: RunLayout, killed: WorkSpan) -> None:
        self.layout = layout
        self.killed = killed
        self._self = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        self._after, self._counted_from = -1, time.monotonic()
        self._write()

    def reached(self, last: int) -> None:
        """The ledger ends with the event of that number now; what came before is in it."""
        self._after, self._counted_from = last, time.monotonic()

    def beat(self) -> None:
        """The owner is at work still: should it be killed, its time counts up to here. Told often,
        it notes so every `BEAT_SECONDS`."""
        if time.monotonic() - self._written >= BEAT_SECONDS and self.is_here():
            with suppress(SetupError):
                self._write()

    def is_here(self) -> bool:
        """Whether the folder is still the one that this process owns."""
        note = _note(self.layout)
        return {key: note.get(key) for key in self._self} == self._self

    def leave(self) -> None:
        """Take the note away; a folder that has come in the place of the run is let alone."""
        if self.is_here():
            with suppress(OSError):  # a note without a lock says nothing
                self.layout.owner.unlink()

    def _write(self) -> None:
        self._written = time.monotonic()
        work = {"after": self._after, "seconds": round(self._written - self._counted_from, 3)}
        write_atomically(self.layout.owner, json.dumps(self._self | work) + "\n")


@contextmanager
def owning(layout: RunLayout) -> Iterator[Owner]:
    """Hold the run's lock. Raises SetupError naming the pid and host that hold it already."""
    lock = _try_to_lock(layout)
    if lock is None:
        raise SetupError(
            f"run {layout.name!r} is in use by {_owner(layout)}",
            "Wait for it to end, or stop that process.",
        )
    with _held(layout, lock, _left_behind(layout)) as owner:
        yield owner


@contextmanager
def claiming(name: str, *, chosen: bool) -> Iterator[Owner]:
    """Make the folder of a new run and hold its lock.

    A `chosen` name that is taken raises what `refuse_taken` does; another one gets the next free
    number behind it, also while a process beside this one takes numbers.
    """
    for number in itertools.count(1):
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        if not is_free(folder):
            if chosen:
                refuse_taken(name)
            continue
        layout = RunLayout(folder)
        with translating_storage_errors(layout.root):
            layout.root.mkdir(parents=True, exist_ok=True)
        lock = _try_to_lock(layout)
        if lock is None or not is_free(folder):
            # Another process was quicker: it holds the lock, or has begun its run and let go.
            if lock is not None:
                lock.release()
            if chosen:
                raise UsageError(
                    f"a run named {name!r} is being created by {_owner(layout)}",
                    "Choose another --name.",
                )
            continue
        with _held(layout, lock, WorkSpan()) as owner:
            try:
                yield owner
            finally:
                _forget(owner)
        return


def _forget(owner: Owner) -> None:
    """Leave nothing behind of a run that has not begun: its name stays free."""
    layout = owner.layout
    if owner.is_here() and not is_run(layout.root):
        with suppress(OSError):
            layout.ledger.unlink(missing_ok=True)
            layout.config.unlink(missing_ok=True)


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
        with translating_storage_errors(layout.lock):
            lock.acquire()
    except Timeout:
        return None
    return lock


@contextmanager
def _held(layout: RunLayout, lock: FileLock, killed: WorkSpan) -> Iterator[Owner]:
    """Write down who holds the lock; let it go at the end."""
    try:
        owner = Owner(layout, killed)
        try:
            yield owner
        finally:
            owner.leave()
    finally:
        lock.release()


def _note(layout: RunLayout) -> dict[str, Any]:
    """What the run's owner says of itself; empty where there is no such note."""
    try:
        note = json.loads(layout.owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _owner(layout: RunLayout) -> str:
    note = _note(layout)
    if "pid" in note and "host" in note:
        return f"process {note['pid']} on {note['host']}"
    return "another process"


def _left_behind(layout: RunLayout) -> WorkSpan:
    """The stint that the note of a killed owner tells of; an empty one where there is none. Notes
    of earlier versions do not tell how long it was."""
    note = _note(layout)
    try:
        return WorkSpan(int(note["after"]), max(0.0, float(note["seconds"])))
    except (KeyError, TypeError, ValueError, OverflowError):
        return WorkSpan()
