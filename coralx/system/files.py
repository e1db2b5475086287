"""Files and folders that are either whole or absent: temporary name, fsync, rename."""

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
"""The pattern of names of what is being written, or was when its process was killed."""


@contextmanager
def translating_storage_errors(path: Path) -> Iterator[None]:
    """Turn storage errors while `path` is written into a SetupError that names it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number is None:
            raise
        raise SetupError(
            f"{path}: cannot be written ({os.strerror(number)})",
            WAYS_OUT.get(number, "Fix the storage error."),
        ) from error


def _error_number(error: Exception) -> int | None:
    """The system's number of an error; safetensors puts it into its message only."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def cache_folder() -> Path:
    """The folder for what can be made again. Raises SetupError where it cannot be created."""
    folder = user_cache_path("coralx")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"the cache folder {folder} cannot be created: {error.strerror}",
            "Make it writable, or set the environment variable XDG_CACHE_HOME to another folder.",
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
    """Have renames in a folder survive a power cut; a no-op where the system has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Have a file's content survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` (text as UTF-8); whoever reads it sees the old content or the
    new, never half. Raises SetupError on storage errors."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with translating_storage_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # the file system may have become read-only
                temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)


def make_parents(path: Path, levels: int) -> None:
    """Create at most so many levels of missing folders above `path`: a run folder that was deleted
    is not brought back by a file that belongs into it. Raises SetupError on storage errors."""
    with translating_storage_errors(path):
        for folder in reversed(path.parents[:levels]):
            folder.mkdir(exist_ok=True)


def write_folder(path: Path, fill: Callable[[Path], None], *, syncs: bool = True) -> None:
    """Create the folder `path` by `fill(temporary folder)`, with a manifest written last. It
    outlives a loss of power unless `syncs` is off, which is for what can be made again at once.

    The manifest holds the SHA-256 of each file. An older folder of that name is replaced. At most
    the two folders above it are created: a run folder that was deleted is not brought back by one
    of its checkpoints. Raises SetupError on storage errors.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    older = path.with_name(f".{path.name}.{os.getpid()}.older.tmp")
    with translating_storage_errors(path):
        try:
            _make_anew(temporary)
            fill(temporary)
            names = sorted(os.listdir(temporary))
            digests = {name: sha256_of(temporary / name) for name in names}
            text = json.dumps(digests, indent=2) + "\n"
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            for name in (*names, MANIFEST) if syncs else ():
                fsync_file(temporary / name)
            if is_replaced := path.exists():  # a folder that is not empty cannot be renamed over
                path.rename(older)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if older.exists() and not path.exists():
                older.rename(path)
            raise
        if is_replaced:
            shutil.rmtree(older, ignore_errors=True)
        if syncs:
            fsync_directory(path.parent)


def _make_anew(folder: Path) -> None:
    """Make an empty folder, and where they are missing the two above it."""
    try:
        folder.mkdir()
    except FileNotFoundError:
        make_parents(folder, 2)
        folder.mkdir()
    except FileExistsError:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()


def remove_folder(path: Path) -> None:
    """Delete a folder; a kill meanwhile leaves one of a temporary name, not half of this one."""
    older = path.with_name(f".{path.name}.{os.getpid()}.older.tmp")
    path.rename(older)
    shutil.rmtree(older)


def manifest_of(path: Path) -> dict[str, str]:
    """The manifest of a folder: its files with their SHA-256. Raises DamagedRunError."""
    manifest = path / MANIFEST
    try:
        digests = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedRunError(f"{path}: incomplete: it has no {MANIFEST}") from None
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
            actual = sha256_of(file)
        except OSError as error:
            raise DamagedRunError(f"{file}: cannot be read ({error.strerror})") from None
        if actual != digest:
            raise DamagedRunError(f"{file}: damaged: its checksum differs from the manifest's")
