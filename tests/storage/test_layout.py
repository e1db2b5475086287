"""Names of runs: found, taken, and refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coralx.errors import UsageError
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Ledger
from coralx.storage.lock import claiming
from tests.support.ledgers import EVENTS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(name: str, *, chosen: bool = False) -> RunLayout:
    with claiming(name, chosen=chosen) as owner:
        Ledger(owner.layout.ledger).append(EVENTS[0])
    return owner.layout


@pytest.mark.usefixtures("here")
def test_taken_name_gets_the_next_free_number() -> None:
    assert [begin("x").name for _ in range(3)] == ["x", "x-2", "x-3"]
    assert begin("y").name == "y"


@pytest.mark.usefixtures("here")
def test_chosen_name_that_is_taken_is_refused() -> None:
    begin("x", chosen=True)
    with (
        pytest.raises(UsageError, match="'x' exists already") as caught,
        claiming("x", chosen=True),
    ):
        pass
    assert "--resume x" in caught.value.hint
    assert not Path("runs/x-2").exists()


@pytest.mark.parametrize("content", [None, b"", b'{"seq":0'])
def test_folder_without_a_first_event_can_be_taken(here: Path, content: bytes | None) -> None:
    folder = here / "runs" / "x"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "ledger.jsonl").write_bytes(content)
    with claiming("x", chosen=True) as owner:
        assert owner.layout.root == folder


def test_run_is_found_by_name_by_folder_and_as_the_latest(here: Path) -> None:
    first, second = begin("one"), begin("two")
    os.utime(second.ledger, (1, 1))
    assert find_run("two").root == second.root
    assert find_run(str(here / "runs" / "two")).root == second.root
    assert find_run("latest").root == first.root
    with pytest.raises(UsageError, match="'three'") as caught:
        find_run("three")
    assert "one, two" in caught.value.hint


@pytest.mark.usefixtures("here")
def test_latest_of_no_runs_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no run"):
        find_run("latest")
