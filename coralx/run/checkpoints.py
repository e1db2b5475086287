"""Which checkpoints stay, the front's adapters as they are handed over, what kills left behind."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from coralx.errors import DamagedRunError
from coralx.files import TEMPORARY, verify_folder, write_folder
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
    for genome in [path for path in layout.checkpoints.iterdir() if path.is_dir()]:
        if genome.name in at_work:
            continue
        for stage in [path for path in genome.iterdir() if path.is_dir()]:
            if (genome.name, stage.name) not in needed:
                shutil.rmtree(stage)
        if not any(genome.iterdir()):
            genome.rmdir()


def sweep(layout: RunLayout) -> None:
    """Delete the temporary files and folders, wherever in the run folder, that processes left which
    were killed while they wrote. Only for the run's owner, and while no worker writes."""
    for path in list(layout.root.rglob(TEMPORARY)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # what lies within is found, too
        else:
            path.unlink(missing_ok=True)


def hand_over(layout: RunLayout, front: Sequence[str], last_stage: str) -> None:
    """Copy the front's adapters into `best/`, and remove what is no longer on the front."""
    if layout.best.is_dir():
        for folder in list(layout.best.iterdir()):
            if folder.name not in front:
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
