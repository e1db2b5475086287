"""The run's memory: an append-only log, one event a line, flushed, synced and checksummed.

A line is `{"seq", "time", "type", "payload", "checksum"}`; the checksum is the SHA-256 of the
canonical JSON of the other four. A torn last line (no newline, cut off by a kill) is dropped; any
other damage is an error naming file and line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from coralx.errors import DamagedRunError
from coralx.events import Event, RunStarted, TrainedBeside
from coralx.files import canonical_json, fsync_directory, storing
from coralx.records import from_json, to_json

FORMAT = 1
"""Version of the ledger's format; written into the first event."""

_TYPES: dict[str, type[Any]] = {
    **{cls.__name__: cls for cls in get_args(Event)},
    "BaselineTrained": TrainedBeside,  # as it was called while only the baseline was
}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _checksum(entry: dict[str, Any]) -> str:
    body = {key: entry[key] for key in ("seq", "time", "type", "payload")}
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One event with its place and time (ISO 8601, UTC)."""

    seq: int
    time: str
    event: Event

    @property
    def timestamp(self) -> float:
        """Seconds since the epoch."""
        return datetime.fromisoformat(self.time).timestamp()


class Ledger:
    """An open ledger. Without a path it lives in memory only, for plans that leave no trace."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: list[Entry] = []
        self._observers: list[Callable[[Event], None]] = []
        if path is not None and path.exists():
            self._entries, intact = _read(path)
            if intact < path.stat().st_size:
                with storing(path):
                    os.truncate(path, intact)

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
        SetupError where the storage refuses it.
        """
        entry = Entry(len(self._entries), _now(), event)
        size = self._path.stat().st_size if self._path and self._path.exists() else 0
        try:
            if self._path is not None:
                with storing(self._path):
                    _write(self._path, entry)
            self._entries.append(entry)
        except BaseException:
            del self._entries[entry.seq :]
            if self._path is not None and self._path.exists():
                with suppress(OSError):  # a line that stays torn is dropped when it is read
                    os.truncate(self._path, size)
            raise
        for observer in self._observers:
            observer(event)


def _write(path: Path, entry: Entry) -> None:
    data: dict[str, Any] = {
        "seq": entry.seq,
        "time": entry.time,
        "type": type(entry.event).__name__,
        "payload": to_json(entry.event),
    }
    data["checksum"] = _checksum(data)
    is_new = not path.exists()
    with path.open("ab") as file:
        file.write((canonical_json(data) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        fsync_directory(path.parent)


def _read(path: Path) -> tuple[list[Entry], int]:
    """The entries of a ledger file, and the length in bytes of its intact part."""
    entries: list[Entry] = []
    intact = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            entries.append(_parse(line, number, path))
            intact += len(line)
    if entries and isinstance(entries[0].event, RunStarted) and entries[0].event.format > FORMAT:
        raise DamagedRunError(
            f"{path}: written in format {entries[0].event.format}, this CoralX reads {FORMAT}",
            "Use the newer CoralX that wrote it.",
        )
    return entries, intact


def _parse(line: bytes, number: int, path: Path) -> Entry:
    where = f"{path}, line {number}"
    try:
        data = json.loads(line)
        if line != (canonical_json(data) + "\n").encode():
            raise DamagedRunError(f"{where}: damaged, it is not as it was written")
        if data["checksum"] != _checksum(data):
            raise DamagedRunError(f"{where}: damaged, its checksum does not fit")
        if data["seq"] != number - 1:
            raise DamagedRunError(f"{where}: event {number - 1} is missing")
        cls = _TYPES.get(data["type"])
        if cls is None:
            raise DamagedRunError(
                f"{where}: unknown event {data['type']!r}",
                "The run was written by a newer version of CoralX.",
            )
        entry = Entry(data["seq"], data["time"], from_json(cls, data["payload"]))
        entry.timestamp  # noqa: B018  raises where it is no time
        return entry
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        reason = "not an event of this format" if isinstance(error, ValidationError) else "not JSON"
        raise DamagedRunError(f"{where}: damaged, {reason}") from None
