"""`coralx` on a disk that goes bad in the middle of a run.

    python bad_disk.py HOW EVENT FOLDER ARGUMENT...

runs `coralx ARGUMENT...`. As soon as the ledger holds an event of that name (`begin`: before there
is a ledger), FOLDER becomes `full`, or `read-only` (in a mount namespace of its own), or a number:
the size in bytes that a file of this process may have.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import coralx.cli.evolve
from coralx.cli import main
from coralx.config import Config
from coralx.records.events import Event, code_of
from coralx.report.live import Silent

FILLER = "filler"


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


if __name__ == "__main__":
    how, event, folder, *arguments = sys.argv[1:]
    coralx.cli.evolve.view_for = lambda *_, **__: Spoiler(how, event, Path(folder))
    sys.argv = ["coralx", *arguments]
    main()
