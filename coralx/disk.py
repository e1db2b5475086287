"""Whether the disk has room for what a run will write, asked before it writes anything."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from coralx.config import Config
from coralx.errors import SetupError
from coralx.facts import Footprint
from coralx.requirements import disk_need
from coralx.run.layout import RUNS, RunLayout
from coralx.training.memory import gib

WAYS_OUT = (
    "Make room, or have less written: smaller ranks, fewer target_modules, a smaller "
    "evolution.population_size, runtime.keep_checkpoints: needed."
)


def free_bytes(folder: Path) -> int:
    """What is free on the file system on which `folder` lies, or will lie."""
    found = folder.resolve()
    while not found.exists():
        found = found.parent
    return shutil.disk_usage(found).free


def require_room(
    config: Config, footprint: Footprint | None, layout: RunLayout | None = None
) -> str | None:
    """A warning where the disk may fill before the run ends; None where it will not, or where
    nothing is trained. With the `layout` of a run that goes on, what it holds is counted as there.

    Raises SetupError where what is free is not even the least: of a new run its first generation,
    of one that goes on a single checkpoint, for nobody knows how much it has left to write.
    """
    if footprint is None:
        return None
    need = disk_need(config, footprint)
    folder = layout.root if layout else RUNS
    free, least, most = free_bytes(folder), need.least, need.most
    if layout is not None:
        least, most = need.one, max(need.one, need.most - _size(layout))
    told = (
        f"the run writes at least {gib(least)}, up to {gib(most)} if all its genomes are of the "
        f"largest size, and {gib(free)} are free on the disk of {folder.resolve()}"
    )
    if free < least:
        raise SetupError(told, WAYS_OUT)
    return f"{told}. {WAYS_OUT}" if free < most else None


def _size(layout: RunLayout) -> int:
    """Bytes that lie in the run's checkpoints and in `best/`."""
    size = 0
    for top in (layout.checkpoints, layout.best):
        for folder, _, names in os.walk(top):  # passes over what goes while it is listed
            for name in names:
                with suppress(OSError):
                    size += os.stat(os.path.join(folder, name)).st_size
    return size
