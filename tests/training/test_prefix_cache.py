"""What is kept of frozen layers: in memory up to a limit, then in a file that leaves nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from coralx.training import prefix_cache
from coralx.training.prefix_cache import PrefixCache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_memory_has_no_room_for_comes_back_from_a_file(folder: Path) -> None:
    cache = PrefixCache(4 * 6)
    tensors = {
        "first": torch.arange(6.0).view(2, 3),
        "second": torch.randn(5, 3),
        "half": torch.randn(4, 3).bfloat16(),
        "cut": torch.randn(4, 6)[:, ::2],
    }
    for key, tensor in tensors.items():
        cache.put(key, tensor)
    assert list(cache._held) == ["first"]
    for key in ("cut", "first", "half", "second", "second"):
        found = cache.get(key)
        assert found is not None
        assert found.dtype == tensors[key].dtype
        assert torch.equal(found, tensors[key])
    assert cache.get("another") is None
    assert list(folder.iterdir()) == [], "nothing is left, however the process ends"


def test_a_full_disk_ends_the_keeping_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrefixCache(0)
    assert not list(folder.iterdir())
    cache.put("kept", torch.ones(3))
    nearly_full = SimpleNamespace(free=prefix_cache.LEFT_FREE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    cache.put("lost", torch.ones(3))
    monkeypatch.undo()
    cache.put("later", torch.ones(3))
    assert cache.get("kept") is not None
    assert cache.get("lost") is None
    assert cache.get("later") is None


def test_a_folder_that_cannot_be_written_to_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    cache = PrefixCache(0)
    cache.put("key", torch.ones(3))
    assert cache.get("key") is None


def test_a_disk_that_has_room_for_a_part_keeps_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Small:
        """Of eight bytes."""

        def __init__(self, **_: object) -> None:
            self.held = b""

        def seek(self, place: int) -> None:
            self.held = self.held[:place]

        def write(self, values: bytes) -> int:
            taken = values[: 8 - len(self.held)]
            self.held += taken
            return len(taken)

    monkeypatch.setattr(tempfile, "TemporaryFile", Small)
    cache = PrefixCache(0)
    cache.put("key", torch.ones(3))
    assert cache.get("key") is None
    cache.put("smaller", torch.ones(1))
    assert cache.get("smaller") is None


@pytest.mark.usefixtures("folder")
def test_what_cannot_be_read_is_computed_again() -> None:
    cache = PrefixCache(0)
    cache.put("key", torch.ones(3))
    assert cache._file is not None
    cache._file.truncate(4)
    assert cache.get("key") is None
