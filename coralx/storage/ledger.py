"""The run's memory: an append-only log, one event a line, flushed, synced and checksummed. That
of a simulation is not synced: it outlives a kill, and a loss of power costs seconds.

A line is `{"seq", "time", "clock", "type", "payload", "checksum"}`; the checksum is the SHA-256 of
the canonical JSON of the others. `time` is what the system's clock said, for people; `clock` counts
seconds that nobody can set back or forward, from a beginning that is each process's own (lines of
format 1 have none). A torn last line (no newline, cut off by a kill) is dropped; any other damage
is an error naming file and line.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import index
from pathlib import Path
from typing import Any, Never

from pydantic import ValidationError

from coralx.errors import DamagedRunError, SetupError
from coralx.records.events import Event, RunStarted, class_of, code_of
from coralx.records.serialization import from_json, to_json
from coralx.storage.layout import RunLayout, ledger_way_out, run_gone_error
from coralx.system.files import canonical_json, fsync_directory, translating_storage_errors

FORMAT = 2
"""Version of the ledger's format; written into the first event."""

RESTORE = "Restore it from a backup: nothing replaces it."
CUT_OFF = (
    "Restore it from a backup. Or keep a copy, cut the file off before that line, and resume: what "
    "followed is trained again."
)
FIX = "Make it a file that can be read, or restore it from a backup."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _checksum(entry: dict[str, Any]) -> str:
    body = {key: value for key, value in entry.items() if key != "checksum"}
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A line of the ledger."""

    seq: int
    """Its place, from 0."""
    time: str
    """ISO 8601, UTC."""
    event: Event
    clock: float | None = None
    """Seconds of the monotonic clock of the process that wrote it; None by a version that did not
    record them."""

    @property
    def timestamp(self) -> float:
        """Seconds since the epoch."""
        return datetime.fromisoformat(self.time).timestamp()

    def seconds_after(self, before: Entry) -> float:
        """How long after another event of the same process it was written."""
        if self.clock is None or before.clock is None:
            return max(0.0, self.timestamp - before.timestamp)
        return max(0.0, self.clock - before.clock)


class Ledger:
    """An open ledger. Without a path it lives in memory only, for plans that leave no trace."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: list[Entry] = []
        self._observers: list[Callable[[Event], None]] = []
        self._size: int | None = None  # of the file, as this process has left it
        self.syncs = True
        """Whether events outlive a loss of power, too."""
        if path is not None and os.path.lexists(path):
            self._entries, self._size = _read(path)
            if self._size < path.stat().st_size:
                with translating_storage_errors(path):
                    os.truncate(path, self._size)

    @staticmethod
    def read(path: Path) -> tuple[Entry, ...]:
        """The intact entries of a ledger file, which is left as it is."""
        return tuple(_read(path)[0])

    @staticmethod
    def read_events(path: Path) -> list[Event]:
        """The events of a ledger file, which is left as it is."""
        return [entry.event for entry in _read(path)[0]]

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    def __iter__(self) -> Iterator[Event]:
        return (entry.event for entry in self._entries)

    def subscribe(self, observer: Callable[[Event], None]) -> None:
        """Call `observer` with every event once it is safely written."""
        self._observers.append(observer)

    def append(self, event: Event) -> None:
        """Write `event`, so that it outlives a kill of the process or a loss of power.

        Whatever interrupts it (a full disk, Ctrl-C) leaves file and memory as they were. Raises
        SetupError where the storage refuses it, DamagedRunError where `require_in_place` does.
        """
        entry = Entry(len(self._entries), _now(), event, round(time.monotonic(), 3))
        self.require_in_place()
        size = self._size
        try:
            if self._path is not None:
                with translating_storage_errors(self._path):
                    written = _write(self._path, entry, is_new=size is None, syncs=self.syncs)
                self._size = (size or 0) + written
            self._entries.append(entry)
        except BaseException:  # Ctrl-C may come between any two of the lines above
            del self._entries[entry.seq :]
            self._size = size
            if self._path is not None and self._path.exists():
                with suppress(OSError):  # a line that stays torn is dropped when it is read
                    os.truncate(self._path, size or 0)
            raise
        for observer in self._observers:
            observer(event)

    def require_in_place(self) -> None:
        """Raise DamagedRunError where the file is not what this process has left there: it, or the
        run folder, was deleted, moved away or replaced. The size tells, on any file system."""
        if self._path is None or self._size is None:
            return
        try:
            with translating_storage_errors(self._path):
                is_same = self._path.stat().st_size == self._size
        except SetupError:
            is_same = False
        if not is_same:
            raise run_gone_error(self._path)


def _write(path: Path, entry: Entry, *, is_new: bool, syncs: bool) -> int:
    """Append the entry's line; its length in bytes. Only as a new one is the file made."""
    data: dict[str, Any] = {
        "seq": entry.seq,
        "time": entry.time,
        "clock": entry.clock,
        "type": code_of(entry.event),
        "payload": to_json(entry.event),
    }
    data["checksum"] = _checksum(data)
    line = (canonical_json(data) + "\n").encode()
    # "ab" would make the file anew where it was deleted during the run, and hide the loss.
    with path.open("ab" if is_new else "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        if syncs:
            os.fsync(file.fileno())
    if is_new and syncs:  # a new file outlives a loss of power only if its folder's entry does
        fsync_directory(path.parent)
    return len(line)


def _read(path: Path) -> tuple[list[Entry], int]:
    """The entries of a ledger file, and the length in bytes of its intact part."""
    entries: list[Entry] = []
    intact = 0
    for number, line in enumerate(lines := _lines(path), start=1):
        entry = _parse(line, number, path)
        if entry.seq != number - 1:
            _refuse_order(path, number, lines)
        entries.append(entry)
        intact += len(line)
    if entries and isinstance(entries[0].event, RunStarted) and entries[0].event.format > FORMAT:
        raise DamagedRunError(
            f"{path}: written in format {entries[0].event.format}, this CoralX reads {FORMAT}",
            "Use the newer CoralX that wrote it.",
        )
    return entries, intact


def _lines(path: Path) -> list[bytes]:
    """The complete lines of the file."""
    try:
        with path.open("rb") as file:
            return [line for line in file if line.endswith(b"\n")]
    except FileNotFoundError:
        raise DamagedRunError(f"{path}: missing", RESTORE) from None
    except OSError as error:
        raise DamagedRunError(f"{path}: cannot be read ({error.strerror})", FIX) from None


def _refuse_order(path: Path, number: int, lines: Sequence[bytes]) -> Never:
    """Say why the line of that number does not hold the event that is due there."""
    where, due = f"{path}, line {number}", number - 1
    numbers = [_parse(line, place, path).seq for place, line in enumerate(lines, start=1)]
    seq = numbers[due]
    if seq < due:
        first = numbers.index(seq) + 1
        raise DamagedRunError(
            f"{where}: duplicated, it repeats line {first} (event {seq})",
            "Keep a copy of the file, remove this line, and run `coralx doctor` again.",
        )
    if due in numbers:
        place = numbers.index(due) + 1
        raise DamagedRunError(
            f"{where}: out of order, it holds event {seq}, and event {due} is in line {place}",
            "Keep a copy of the file, and sort its lines by their `seq`.",
        )
    missing = f"event {due} is" if seq == due + 1 else f"events {due} to {seq - 1} are"
    raise _damaged(path, number, f"{missing} missing")


def _damaged(path: Path, number: int, what: str) -> DamagedRunError:
    """The error for the line of that number: of the first, nothing that follows can be kept."""
    layout = RunLayout(path.parent)
    way_out = ledger_way_out(layout) if number == 1 else CUT_OFF
    return DamagedRunError(f"{path}, line {number}: {what}", way_out)


def _parse(line: bytes, number: int, path: Path) -> Entry:
    try:
        data = json.loads(line)
        # The checksum is of the values: spaces or an order of keys that were changed pass it.
        if line != (canonical_json(data) + "\n").encode():
            raise _damaged(path, number, "damaged, it was changed after it was written")
        if data["checksum"] != _checksum(data):
            raise _damaged(path, number, "damaged, its checksum does not match")
        cls = class_of(data["type"])
        if cls is None:
            raise DamagedRunError(
                f"{path}, line {number}: unknown event {data['type']!r}",
                "A newer version of CoralX seems to have written it: use that version. `coralx "
                "--version` shows this one's.",
            )
        clock = float(data["clock"]) if "clock" in data else None
        entry = Entry(index(data["seq"]), data["time"], from_json(cls, data["payload"]), clock)
        entry.timestamp  # noqa: B018  raises where it is no time
        return entry
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        reason = "not an event of this format" if isinstance(error, ValidationError) else "not JSON"
        raise _damaged(path, number, f"damaged, {reason}") from None
