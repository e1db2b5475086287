"""Checkpoints dropped, and the front's adapters as they are handed over."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from coralx.errors import DamagedRunError
from coralx.storage.layout import RunLayout
from coralx.system.files import (
    MANIFEST,
    manifest_of,
    remove_folder,
    translating_storage_errors,
    verify_folder,
    write_folder,
)

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
ABOUT = "coralx.json"
"""Beside PEFT's files, what an adapter's user needs to know of it; see `storage.adapter_card`."""


def is_intact(layout: RunLayout, genome: str, stage: str) -> bool:
    """Whether the checkpoint is complete and every file is as its manifest says."""
    return is_whole(layout.checkpoint(genome, stage))


def is_whole(folder: Path) -> bool:
    """The same of any folder with a manifest."""
    try:
        verify_folder(folder)
    except DamagedRunError:
        return False
    return True


def prune(
    layout: RunLayout, needed: Collection[tuple[str, str]], at_work: Collection[str] = ()
) -> None:
    """Delete every checkpoint but those of the `needed` (genome, stage) pairs, and those of genomes
    for which a worker is `at_work`: it may be writing one. Raises SetupError where that cannot be.
    """
    if not layout.checkpoints.is_dir():
        return
    with translating_storage_errors(layout.checkpoints):
        for genome in _folder_names(layout.checkpoints):
            if genome in at_work:
                continue
            folder = layout.checkpoints / genome
            stages = _folder_names(folder)
            needless = [stage for stage in stages if (genome, stage) not in needed]
            for stage in needless:
                if _is_made(folder / stage):
                    remove_folder(folder / stage)
            if len(needless) == len(stages) and not any(folder.iterdir()):
                folder.rmdir()


def sweep(layout: RunLayout) -> None:
    """Remove what killed processes left half-written, as far as that can be."""
    for path in layout.half_written():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def drop_partials(layout: RunLayout, is_done: Callable[[str, str], bool]) -> None:
    """Delete what was kept on the way to a stage that `is_done`, asked by genome and stage. Empty
    folders stay, for a worker may be about to write there."""
    if not layout.partials.is_dir():
        return
    with translating_storage_errors(layout.partials):
        for genome in _folders(layout.partials):
            for stage in _folders(genome):
                if is_done(genome.name, stage.name) and _is_made(stage):
                    remove_folder(stage)


def drop_all_partials(layout: RunLayout) -> None:
    """Delete all that was kept on the way. Only while no worker trains."""
    if layout.partials.is_dir() and not layout.partials.is_symlink():
        with translating_storage_errors(layout.partials):
            shutil.rmtree(layout.partials)


def can_write_best(layout: RunLayout, genome: str, last_stage: str) -> bool:
    """Whether the genome's adapter lies in `best/`, or its checkpoint is whole."""
    return is_whole(layout.best_adapter(genome)) or is_intact(layout, genome, last_stage)


def _folders(path: Path) -> list[Path]:
    """The folders in a folder; what a link leads to is none of the run's."""
    return [path / name for name in _folder_names(path)]


def _folder_names(path: Path) -> list[str]:
    # As the folder itself lists them: to ask for each one would take as long as training little.
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _is_made(folder: Path) -> bool:
    """Whether it was made by `write_folder`, or half-made. In a run folder that came from elsewhere
    `checkpoints` and `best` may be links, too: to folders of which nothing may be deleted."""
    return (folder / MANIFEST).is_file() or folder.name.endswith(".tmp")


def write_best(
    layout: RunLayout,
    front: Sequence[str],
    last_stage: str,
    about: Mapping[str, Any] | None = None,
    origins: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Copy the front's adapters into `best/`, each with what there is to say `about` them all and
    its own of the `origins`, by genome; then remove what is no longer on the front.

    Raises DamagedRunError for a checkpoint that is not whole, SetupError where the storage refuses.
    """
    for genome in front:
        source, best = layout.checkpoint(genome, last_stage), layout.best_adapter(genome)
        if is_whole(best) and not is_whole(source):
            source = best  # what was handed over is all that there is
        if not (source / ADAPTER_FILES[0]).is_file():
            continue  # the simulated backend trains no adapter
        own = (origins or {}).get(genome, {})
        text = None if about is None else _text({"genome": genome, **own, **about})
        if _is_handed_over(best, source, text):
            continue
        verify_folder(source)

        def copy(target: Path, source: Path = source, text: str | None = text) -> None:
            for name in ADAPTER_FILES:
                shutil.copyfile(source / name, target / name)
            if text is not None:
                (target / ABOUT).write_text(text, encoding="utf-8")

        with translating_storage_errors(layout.best):
            layout.best.mkdir(exist_ok=True)
        write_folder(best, copy)
    if layout.best.is_dir():
        with translating_storage_errors(layout.best):
            for folder in _folders(layout.best):
                if folder.name not in front and _is_made(folder):
                    remove_folder(folder)


def is_of_checkpoint(best: Path, checkpoint: Path) -> bool:
    """Whether an adapter that was handed over is the checkpoint's, by the manifests of both. Raises
    DamagedRunError where one has none."""
    handed, trained = manifest_of(best), manifest_of(checkpoint)
    return all(name in handed and handed[name] == trained.get(name) for name in ADAPTER_FILES)


def _is_handed_over(best: Path, source: Path, text: str | None) -> bool:
    """Whether `best` holds the adapter whole, as the checkpoint's manifest has it."""
    try:
        verify_folder(best)
        recorded = manifest_of(best).get(ABOUT)
        current = None if text is None else hashlib.sha256(text.encode()).hexdigest()
        return is_of_checkpoint(best, source) and recorded == current
    except DamagedRunError:
        return False


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
