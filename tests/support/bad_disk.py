"""A disk that goes bad in the middle of a run."""

from __future__ import annotations

import ctypes
import resource
import subprocess
from pathlib import Path

import coralx.cli.evolve
from coralx.config import Config
from coralx.records.events import Event, code_of
from coralx.report.live import Silent

FILLER = "filler"
NEW_MOUNTS = 0x20000
"""Of Linux's unshare(2): CLONE_NEWNS."""


def fill(folder: Path) -> None:
    """Leave no block free."""
    with (folder / FILLER).open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def spoil(how: str, folder: Path) -> None:
    if how == "full":
        fill(folder)
    elif how == "read-only":
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    else:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(how), hard))


class Spoiler(Silent):
    def __init__(self, how: str, event: str, folder: Path) -> None:
        self.how, self.event, self.folder = how, event, folder

    def begin(self, config: Config) -> None:
        self._see("begin")

    def on_event(self, event: Event) -> None:
        self._see(code_of(event))

    def _see(self, name: str) -> None:
        if name == self.event:
            self.event = ""
            spoil(self.how, self.folder)


def spoil_at(event: str, how: str, folder: Path) -> None:
    """As soon as the ledger holds an event of that name (`begin`: before there is a ledger), the
    folder becomes `full`, or `read-only` (for this process alone), or how is a number: the size in
    bytes that a file of this process may have."""
    if how == "read-only":
        _take_own_mounts()
    coralx.cli.evolve.view_for = lambda *_, **__: Spoiler(how, event, folder)


def _take_own_mounts() -> None:
    """As `unshare --mount` does: no other process sees what is mounted from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
