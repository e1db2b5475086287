"""Files that are either whole or absent: temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from coralx.errors import DamagedRunError, SetupError

MANIFEST = "manifest.json"
TEMPORARY = ".*.tmp"
"""What matches the names under which files and folders are written before they are renamed."""


def cache_folder() -> Path:
    """Where things are kept that can be made again. Raises SetupError where it cannot be made."""
    folder = user_cache_path("coralx")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"the cache folder {folder} cannot be made: {error.strerror}",
            "Make it writable, or name another by the environment variable XDG_CACHE_HOME.",
        ) from None
    return folder


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys; refuses NaN and infinities (undefined figures are null)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Make renames in a folder last; a no-op where the system has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make a file's content last."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` (text as UTF-8); whoever reads it sees the old content or the
    new, never half."""
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` by `fill(temporary folder)`, with a manifest written last.

    The manifest holds the SHA-256 of each file. An older folder of that name is replaced.
    """
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        names = sorted(file.name for file in temporary.iterdir())
        for name in names:
            fsync_file(temporary / name)
        digests = {name: sha256_of(temporary / name) for name in names}
        write_atomically(temporary / MANIFEST, json.dumps(digests, indent=2) + "\n")
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(path.parent)


def verify_folder(path: Path) -> None:
    """Check every file of `path` against its manifest.

    Raises DamagedRunError naming the first file that is missing or differs.
    """
    manifest = path / MANIFEST
    try:
        digests = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedRunError(f"{path}: incomplete, it has no {MANIFEST}") from None
    except ValueError as error:
        raise DamagedRunError(f"{manifest}: not valid JSON ({error})") from None
    if not isinstance(digests, dict):
        raise DamagedRunError(f"{manifest}: not a list of files with their checksums")
    for name, digest in digests.items():
        file = path / name
        if not file.is_file():
            raise DamagedRunError(f"{file}: missing")
        if sha256_of(file) != digest:
            raise DamagedRunError(f"{file}: damaged, its checksum is not the manifest's")
