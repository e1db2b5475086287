"""Whether the files and folders that a config names exist, checked before any worker starts."""

from __future__ import annotations

from os.path import isdir, isfile  # False for an impossible name, where Path raises
from pathlib import Path

from coralx.config.data import key_of
from coralx.config.schema import Config

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}
"""Formats of data files by suffix."""


def is_local(name: str) -> bool:
    """Whether a name can only be a path on this machine, and no id on a hub."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def public_name(base: str) -> str:
    """The name of a base for others to read, as in an adapter that may be published: for a local
    one the hub's id if it lies in the hub's cache, else its folder's name. An absolute path would
    help nobody else to find it, and show how this machine is laid out."""
    folder = Path(base)
    if not folder.is_absolute():
        return base
    for part in folder.parts:
        if part.startswith("models--"):  # as the hub's cache names the folder of a model
            return part.removeprefix("models--").replace("--", "/")
    return folder.name


def missing_inputs(config: Config) -> list[str]:
    """One line for each named file or folder that does not exist."""
    problems = []
    base = config.model.base
    if base is not None and is_local(base) and not isdir(base):
        what = "expected a folder, found a file" if isfile(base) else "no such folder"
        problems.append(f"model.base: {what}: {base}")
    files = {
        key_of(task, key): name
        for task, source in config.data.sources.items()
        for key, name in source.files.items()
    }
    for key, name in files.items():
        if name.startswith("builtin:"):
            continue
        if isdir(name):
            problems.append(f"{key}: expected a file, found a folder: {name}")
        # Without a suffix of ours it may be a data set on the hub.
        elif not isfile(name) and (is_local(name) or Path(name).suffix.lower() in FORMATS):
            problems.append(f"{key}: no such file: {name}")
    return problems
