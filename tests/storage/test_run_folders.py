"""What lies under `runs/`: a new run takes nobody's place; one whose folder is gone stops."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.api import session
from coralx.backends.simulated import SimulatedBackend
from coralx.doctor.run_check import check_run, is_damaged
from coralx.errors import DamagedRunError, SetupError, UsageError
from coralx.records.events import Event
from coralx.report.live import Silent
from coralx.storage.layout import RunLayout, find_run, is_free, latest_run
from coralx.storage.lock import claiming
from coralx.system.files import write_folder
from tests.support.factories import simulated_config

CONFIG = "data: {steps_per_epoch: 100}\nruntime: {backend: simulated}\nexperiment: {name: x}\n"


@pytest.fixture(autouse=True)
def here(here: Path) -> Path:
    (here / "c.yaml").write_text(CONFIG)
    return here


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("finished"))
        return api.evolve(simulated_config(), "x").layout.root


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Every path below, with a file's bytes or a link's target."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


# -- names that are taken --------------------------------------------------------------------------


def as_folder(ledger: Path) -> None:
    ledger.unlink()
    ledger.mkdir()


def as_dangling_link(ledger: Path) -> None:
    ledger.unlink()
    ledger.symlink_to("nowhere")


RUINS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda ledger: ledger.write_bytes(b""), "empty"),
    "torn": (lambda ledger: ledger.write_bytes(b'{"seq":'), "cut off in its first line"),
    "missing": (Path.unlink, "missing"),
    "folder": (as_folder, "cannot be read (Is a directory)"),
    "link": (as_dangling_link, "a link that leads nowhere"),
}


@pytest.mark.parametrize("ruin", RUINS)
def test_a_run_whose_ledger_is_lost_is_neither_overwritten_nor_called_free(
    finished: Path, ruin: str, command: Any
) -> None:
    shutil.copytree(finished, "runs/x")
    spoil, says = RUINS[ruin]
    spoil(Path("runs/x/ledger.jsonl"))
    before = contents(Path("runs/x"))
    told = f"{RunLayout(Path('runs/x')).ledger}: {says}"
    for arguments in (
        ["evolve", "c.yaml", "--name", "x"],
        ["evolve", "--resume", "x"],
        ["report", "x"],
        ["stage", "c.yaml", "S1_shakeout", "--run", "x"],
    ):
        said = command(*arguments)
        assert (said.code, told in said.err) == (4, True), (arguments, said)
        assert "Restore the ledger from a backup" in " ".join(said.err.split())
    said = command("doctor", "x", "--json")
    (damage,) = (f for f in json.loads(said.out)["findings"] if f["state"] == "damaged")
    assert (said.code, damage["file"], damage["found"]) == (4, "ledger.jsonl", says)
    assert "choose another name" in damage["way_out"]
    said = command("evolve", "c.yaml")
    assert (said.code, "holds no readable run" in said.err) == (0, True)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["x", "x-2"]
    assert contents(Path("runs/x")) == before


@pytest.mark.parametrize("part", ["checkpoints", "best", "partial", "report.json", "config.yaml"])
def test_any_trace_of_a_run_or_of_a_person_takes_the_name(part: str) -> None:
    path = Path("runs/x") / part
    path.parent.mkdir(parents=True)
    path.write_text("{}") if path.suffix else path.mkdir()
    assert not is_free(path.parent)
    with pytest.raises((DamagedRunError, UsageError)), claiming("x", chosen=True):
        pass
    with claiming("x", chosen=False) as owner:
        assert owner.layout.name == "x-2"
    assert [found.name for found in path.parent.iterdir()] == [part]


@pytest.mark.parametrize("kind", ["file", "link", "loop"])
def test_what_is_no_folder_takes_the_name_too(here: Path, kind: str) -> None:
    Path("runs").mkdir()
    if kind == "file":
        Path("runs/x").write_text("mine")
    else:
        Path("runs/x").symlink_to(here / "nowhere" if kind == "link" else "x")
    with pytest.raises(UsageError, match="exists already, and is not a folder"):
        api.evolve(simulated_config(), "x")
    with pytest.raises(UsageError, match="neither a run folder"):
        find_run("x")
    with claiming("x", chosen=False) as owner:
        assert owner.layout.name == "x-2"
    assert not (here / "nowhere").exists()


@pytest.mark.parametrize("first_line", [None, b"", b'{"checksum":"71'])
def test_a_run_that_was_killed_before_its_first_event_leaves_its_name_free(
    first_line: bytes | None, command: Any
) -> None:
    with claiming("x", chosen=True) as owner:
        shutil.copytree(owner.layout.root, "killed")
    shutil.rmtree("runs/x")
    Path("killed").rename("runs/x")
    layout = RunLayout(Path("runs/x"))
    layout.config.write_text(CONFIG)
    if first_line is not None:
        layout.ledger.write_bytes(first_line)
    said = command("doctor", "x")
    assert (said.code, "its name is free" in said.out) == (0, True)
    with pytest.raises(UsageError, match="no run has begun in"):
        find_run("x")
    assert command("evolve", "c.yaml", "--name", "x", "--quiet").code == 0
    assert api.read_report(find_run("x"))["completed"]


def test_a_start_that_fails_leaves_its_name_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space() -> dict[str, str | int]:
        raise SetupError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(session, "hardware", no_space)
        with pytest.raises(SetupError):
            api.evolve(simulated_config(), "x")
    assert is_free(Path("runs/x"))
    assert api.evolve(simulated_config(), "x").report["completed"]


def test_the_latest_run_is_not_passed_over_because_it_cannot_be_read(finished: Path) -> None:
    for name, when in (("one", 1e9), ("one-2", 2e9)):
        shutil.copytree(finished, f"runs/{name}")
        os.utime(f"runs/{name}/ledger.jsonl", (when, when))
    assert find_run("latest").name == latest_run("one").name == "one-2"
    Path("runs/one-2/ledger.jsonl").write_bytes(b"")
    for find in (lambda: find_run("latest"), lambda: latest_run("one")):
        with pytest.raises(DamagedRunError, match=r"one-2/ledger\.jsonl: empty"):
            find()
    Path("runs/one-2/ledger.jsonl").unlink()
    Path("runs/notes").mkdir()  # somebody's own, and no run
    Path("runs/notes/x.txt").write_text("mine")
    for find in (lambda: find_run("latest"), lambda: latest_run("one")):
        with pytest.raises(DamagedRunError, match=r"one-2/ledger\.jsonl: missing"):
            find()


# -- folders that are taken away while a run is at work --------------------------------------------


class After(Silent):
    """Does something once so many events are written."""

    def __init__(self, events: int, act: Callable[[], object]) -> None:
        self.left, self.act = events, act

    def on_event(self, event: Event) -> None:
        self.left -= 1
        if not self.left:
            self.act()


def replaced() -> None:
    shutil.rmtree("runs/x")
    Path("runs/x").mkdir()
    Path("runs/x/ledger.jsonl").write_text("another's\n")
    Path("runs/x/.report.json.7.tmp").write_text("another's")


TAKEN_AWAY: dict[str, tuple[Callable[[], object], list[str]]] = {
    "deleted": (lambda: shutil.rmtree("runs/x"), []),
    "moved": (lambda: Path("runs/x").rename("elsewhere"), []),
    "all runs deleted": (lambda: shutil.rmtree("runs"), []),
    "replaced": (replaced, [".report.json.7.tmp", "ledger.jsonl"]),
}


@pytest.mark.parametrize("way", TAKEN_AWAY)
def test_a_run_whose_folder_is_taken_away_stops_at_once_and_makes_nothing_in_its_place(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, left = TAKEN_AWAY[way]
    trained = []
    train = SimulatedBackend.train

    def counted(backend: SimulatedBackend, job: Any, report: Any, beat: Any) -> Any:
        trained.append(job)
        return train(backend, job, report, beat)

    monkeypatch.setattr(SimulatedBackend, "train", counted)
    with pytest.raises(DamagedRunError, match="deleted, moved or replaced") as caught:
        api.evolve(simulated_config(), "x", After(8, act))
    assert caught.value.exit_code == 4
    assert "--resume FOLDER" in caught.value.hint
    assert len(trained) <= 7
    folder = Path("runs/x")
    assert sorted(path.name for path in folder.rglob("*")) == left
    assert folder.exists() == bool(left)
    if way == "moved":
        assert api.resume(find_run("elsewhere")).report["completed"]


def test_a_checkpoint_does_not_bring_a_deleted_run_folder_back(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "runs" / "x")
    layout.root.mkdir(parents=True)
    write_folder(layout.checkpoint("a", "S0"), lambda folder: (folder / "f").touch())
    shutil.rmtree(layout.root)
    with pytest.raises(SetupError, match="cannot be written"):
        write_folder(layout.checkpoint("a", "S1"), lambda folder: (folder / "f").touch())
    assert not layout.root.exists()


def test_a_report_of_an_earlier_time_is_told_by_what_it_says(finished: Path) -> None:
    """A copy has the times of its copying."""
    shutil.copytree(finished, "runs/x")
    layout = RunLayout(Path("runs/x"))
    report = json.loads(layout.report.read_text())
    report |= {"wall_seconds": report["wall_seconds"] - 1.0, "front": []}
    layout.report.write_text(json.dumps(report))
    assert not is_damaged(check_run(layout))
    report |= {"wall_seconds": report["wall_seconds"] + 2.0}
    layout.report.write_text(json.dumps(report))
    assert is_damaged(check_run(layout))
