"""Whether the files and folders that a config names are there; asked before any worker starts."""

from __future__ import annotations

from os.path import isdir, isfile  # of what cannot be a name they say no; Path raises
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
"""Kinds of data files by suffix."""


def is_local(name: str) -> bool:
    """Whether a name can only mean something on this machine, not on a hub."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def public_name(base: str) -> str:
    """What a base is called where others read it, as in an adapter that may be published: a local
    one by the hub's id if it lies in the hub's cache, else by its folder's name. An absolute path
    tells nobody where to find it, but how this machine is laid out."""
    folder = Path(base)
    if not folder.is_absolute():
        return base
    cached = (part for part in folder.parts if part.startswith("models--"))
    return next((part[len("models--") :].replace("--", "/") for part in cached), folder.name)


def missing_inputs(config: Config) -> list[str]:
    """One line for each named file or folder that does not exist."""
    problems = []
    base = config.model.base
    if base is not None and is_local(base) and not isdir(base):
        what = "is a file; a folder is needed" if isfile(base) else "no such folder"
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
            problems.append(f"{key}: is a folder; a file is needed: {name}")
        elif not isfile(name) and (is_local(name) or Path(name).suffix.lower() in FORMATS):
            problems.append(f"{key}: no such file: {name}")
    return problems
