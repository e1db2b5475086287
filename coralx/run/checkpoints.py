"""Which checkpoints stay, and the front's adapters as they are handed over."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from coralx.errors import DamagedRunError
from coralx.files import MANIFEST, verify_folder, write_folder
from coralx.run.layout import RunLayout

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


def is_intact(layout: RunLayout, genome: str, stage: str) -> bool:
    """Whether the checkpoint is complete and every file is as its manifest says."""
    try:
        verify_folder(layout.checkpoint(genome, stage))
    except DamagedRunError:
        return False
    return True


def prune(
    layout: RunLayout, needed: Collection[tuple[str, str]], at_work: Collection[str] = ()
) -> None:
    """Delete every checkpoint but those of the `needed` (genome, stage) pairs, and those of genomes
    for which a worker is `at_work`: it may be writing one."""
    if not layout.checkpoints.is_dir():
        return
    for genome in _folders(layout.checkpoints):
        if genome.name in at_work:
            continue
        for stage in _folders(genome):
            if (genome.name, stage.name) not in needed and _is_made(stage):
                shutil.rmtree(stage)
        if not any(genome.iterdir()):
            genome.rmdir()


def _folders(path: Path) -> list[Path]:
    """The folders in a folder; what a link leads to is none of the run's."""
    return [found for found in path.iterdir() if found.is_dir() and not found.is_symlink()]


def _is_made(folder: Path) -> bool:
    """Whether it was made by `write_folder`, or half-made. In a run folder that came from elsewhere
    `checkpoints` and `best` may be links, too: to folders of which nothing may be deleted."""
    return (folder / MANIFEST).is_file() or folder.name.endswith(".tmp")


def hand_over(layout: RunLayout, front: Sequence[str], last_stage: str) -> None:
    """Copy the front's adapters into `best/`, and remove what is no longer on the front."""
    if layout.best.is_dir():
        for folder in _folders(layout.best):
            if folder.name not in front and _is_made(folder):
                shutil.rmtree(folder)
    for genome in front:
        source = layout.checkpoint(genome, last_stage)
        if not (source / ADAPTER_FILES[0]).is_file():
            continue  # the simulated backend trains no adapter
        verify_folder(source)

        def copy(target: Path, source: Path = source) -> None:
            for name in ADAPTER_FILES:
                shutil.copyfile(source / name, target / name)

        write_folder(layout.best_adapter(genome), copy)
