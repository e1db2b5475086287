"""Files and folders that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coralx.errors import DamagedRunError, SetupError
from coralx.system.files import (
    MANIFEST,
    verify_folder,
    write_atomically,
    write_folder,
)
from tests.support.ledgers import fill


def test_atomic_write_replaces_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("old\n", "neu: ä\r\n"):
        write_atomically(path, text)
        assert path.read_bytes() == text.encode()
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_failed_atomic_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half, then \ud800")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SetupError, match=r"a\.json: cannot be written \(No space") as caught:
        write_atomically(path, "new")
    assert "Free space" in caught.value.hint
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def fill_otherwise(folder: Path) -> None:
    (folder / "old.txt").write_text("old", encoding="utf-8")


def test_written_folder_verifies_and_replaces_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "S0"
    write_folder(folder, fill_otherwise)
    write_folder(folder, fill)
    verify_folder(folder)
    assert sorted(file.name for file in folder.iterdir()) == [MANIFEST, "one.bin", "two.txt"]
    assert [child.name for child in folder.parent.iterdir()] == ["S0"]


def test_failed_fill_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "S0"
    write_folder(folder, fill)

    def fail(target: Path) -> None:
        (target / "half.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, fail)
    verify_folder(folder)
    assert [child.name for child in tmp_path.iterdir()] == ["S0"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("one.bin", b"\x00\x00", "one.bin: damaged"),
        ("one.bin", None, "one.bin: missing"),
        ("two.txt", b"", "two.txt: damaged"),
        (MANIFEST, None, "incomplete"),
        (MANIFEST, b"{", "not readable as JSON"),
        (MANIFEST, b"\xff", "not readable as JSON"),
        pytest.param(
            MANIFEST,
            b"[]",
            MANIFEST,
        ),
    ],
)
def test_changed_or_missing_file_of_a_folder_is_found(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    folder = tmp_path / "S0"
    write_folder(folder, fill)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(DamagedRunError) as caught:
        verify_folder(folder)
    assert says in caught.value.message
    assert str(folder) in caught.value.message
