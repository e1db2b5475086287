"""By what a resume recognises a base, wherever it lies: the numbers and settings it computes with.

Weights are compared as the files have them, tensor by tensor: a base that is loaded in 4 bits, in
another precision or onto another device is the same, and so is one that was copied or saved anew in
other pieces. Of its settings those count that are not their class's defaults, so that neither what
a later version of transformers writes out nor a field that it adds makes another base of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import cached_file

from coralx.system.files import canonical_json

WEIGHTS = "model.safetensors"

IRRELEVANT = {
    *("_name_or_path", "_commit_hash", "auto_map", "architectures"),
    *("transformers_version", "dtype", "torch_dtype"),
}
"""Settings about where a base came from or how it was saved, not about what it computes."""

CHUNK = 1 << 24
"""Bytes that are read at a time."""


@dataclass(frozen=True, order=True)
class _Tensor:
    """A tensor in a file."""

    name: str
    kind: str
    """Its type, as safetensors calls it."""
    shape: tuple[int, ...]
    file: Path
    place: int
    """Where in the file it begins, in bytes."""
    size: int
    """In bytes."""


def fingerprint_of_base(path: str, *, runs_code: bool) -> str:
    """The digest of the base's settings (and where it `runs_code` of its own, of that), a dash, and
    the digest of its weights.

    `path` is a folder, or a hub id that has been loaded. Raises OSError where its files cannot be
    found or read, ValueError where they are of another format.
    """
    cached = cached_file(path, "config.json", local_files_only=True)
    folder = Path(path) if os.path.isdir(path) else Path(str(cached)).parent
    settings = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=runs_code)
    code = sorted(folder.glob("*.py")) if runs_code else []
    # A base's own code decides what is computed as much as its settings do.
    described = [
        _computed_with(settings.to_diff_dict()),
        [file.read_text("utf-8") for file in code],
    ]
    text = json.dumps(described, sort_keys=True, default=str)
    return f"{hashlib.sha256(text.encode()).hexdigest()}-{_of_weights(folder)}"


def _computed_with(settings: Any) -> Any:
    """The settings without irrelevant ones, in nested configs too."""
    if isinstance(settings, dict):
        return {k: _computed_with(value) for k, value in settings.items() if k not in IRRELEVANT}
    return settings


def _of_weights(folder: Path) -> str:
    """Over all tensors in the order of their names: name, type, shape and bytes. Several are read
    at once, for neither reading nor hashing holds the interpreter."""
    tensors = sorted(tensor for file in _files(folder) for tensor in _tensors(file))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        digests = pool.map(_digest, tensors)
        listed = [[t.name, t.kind, t.shape, d] for t, d in zip(tensors, digests, strict=True)]
    return hashlib.sha256(canonical_json(listed).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    """The files of weights, as transformers chooses them."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = json.loads((folder / f"{WEIGHTS}.index.json").read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _tensors(file: Path) -> Iterator[_Tensor]:
    """What a safetensors file holds by its header. The format: eight bytes with the header's
    length, the header in JSON, the data."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        yield _Tensor(name, entry["dtype"], shape, file, 8 + length + begin, end - begin)


def _digest(tensor: _Tensor) -> str:
    """The SHA-256 of a tensor's bytes, read in pieces, as a tensor may have gigabytes."""
    digest, left = hashlib.sha256(), tensor.size
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.place)
        while left and (chunk := stream.read(min(left, CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
