"""Files that are either whole or absent: temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from safetensors import SafetensorError

from coralx.errors import DamagedRunError, SetupError
from coralx.system.os_errors import WAYS_OUT

MANIFEST = "manifest.json"

TEMPORARY = ".*.tmp"
"""Names of what is being written, and of what a killed process left half-written."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the storage refuses while `path` is written into a SetupError that names it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number is None:
            raise
        raise SetupError(
            f"{path}: cannot be written ({os.strerror(number)})",
            WAYS_OUT.get(number, "Mend that."),
        ) from error


def _error_number(error: Exception) -> int | None:
    """The system's number of an error; safetensors has it in its message only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` (text as UTF-8); whoever reads it sees the old content or the
    new, never half. Raises SetupError where the storage refuses it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # a file system that has become read-only keeps it
                temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)


def make_parents(path: Path, levels: int) -> None:
    """Make as many of the folders above `path`, and no more: what lies in a run folder that was
    deleted does not bring it back. Raises SetupError where the storage refuses it."""
    with storing(path):
        for folder in reversed(path.parents[:levels]):
            folder.mkdir(exist_ok=True)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` by `fill(temporary folder)`, with a manifest written last.

    The manifest holds the SHA-256 of each file. An older folder of that name is replaced. The two
    folders above it are made, no more: a run folder that was deleted, whose checkpoint this is to
    be, does not come back. Raises SetupError where the storage refuses it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    older = path.with_name(f".{path.name}.{os.getpid()}.older.tmp")
    with storing(path):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            make_parents(path, 2)
            temporary.mkdir()
            fill(temporary)
            names = sorted(file.name for file in temporary.iterdir())
            digests = {name: sha256_of(temporary / name) for name in names}
            text = json.dumps(digests, indent=2) + "\n"
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            for name in (*names, MANIFEST):
                fsync_file(temporary / name)
            if path.exists():
                path.rename(older)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if older.exists() and not path.exists():
                older.rename(path)
            raise
        shutil.rmtree(older, ignore_errors=True)
        fsync_directory(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder; a kill in the midst of it leaves a temporary one, not half of this one."""
    older = path.with_name(f".{path.name}.{os.getpid()}.older.tmp")
    path.rename(older)
    shutil.rmtree(older)


def manifest_of(path: Path) -> dict[str, str]:
    """What the manifest of a folder says: its files with their SHA-256. Raises DamagedRunError."""
    manifest = path / MANIFEST
    try:
        digests = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedRunError(f"{path}: incomplete, it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise DamagedRunError(f"{manifest}: not readable as JSON ({error})") from None
    if not isinstance(digests, dict):
        raise DamagedRunError(f"{manifest}: not a list of files with their checksums")
    return digests


def verify_folder(path: Path) -> None:
    """Check every file of `path` against its manifest.

    Raises DamagedRunError naming the first file that is missing or differs.
    """
    for name, digest in manifest_of(path).items():
        file = path / name
        if not file.is_file():
            raise DamagedRunError(f"{file}: missing")
        try:
            found = sha256_of(file)
        except OSError as error:
            raise DamagedRunError(f"{file}: cannot be read ({error.strerror})") from None
        if found != digest:
            raise DamagedRunError(f"{file}: damaged, its checksum is not the manifest's")
