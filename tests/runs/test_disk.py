"""A disk that is full, read-only or allows no larger file: a clear error, nothing lost, and the
run ends as if nothing had happened once there is room."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from coralx.api import runs as api
from coralx.config import Config, dump_yaml
from coralx.doctor.requirements import disk_need, require_room
from coralx.errors import SetupError
from coralx.execution.executor import StatusUpdate
from coralx.records.events import (
    Event,
    GenerationCompleted,
    GenerationStarted,
    RunCompleted,
    StageCompleted,
    StageDecided,
)
from coralx.records.run_facts import Footprint
from coralx.report.live import Silent
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from coralx.text import gib
from tests.support.bad_disk import FILLER, spoil_at
from tests.support.command import coralx_here
from tests.support.factories import make_config, simulated_config
from tests.support.forks import fork_coralx

HERE = ("--set", "runtime.executor=in-process")
DECISIONS = (GenerationStarted, StageDecided, GenerationCompleted, RunCompleted)


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A small file system of its own. Skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here: that takes root and CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", "8m") as folder:
        yield folder


def coralx(folder: Path, *arguments: str, code: int = 0, spoiled: tuple[str, ...] = ()) -> str:
    """Run the command in `folder`; its output. With a disk that is `spoiled`, (how, event, folder),
    in a process of its own."""
    if not spoiled:
        return coralx_here(folder, *arguments, code=code)
    how, event, place = spoiled
    process = fork_coralx(
        folder, *arguments, before=lambda: spoil_at(event, how, Path(place)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output = process.communicate(timeout=600)[0].decode()
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def story(run: Path) -> list[Event]:
    """What was trained and decided, without what belongs to one folder; results, which come in the
    order of their completion, behind the rest."""
    told: list[Event] = []
    results: list[StageCompleted] = []
    for entry in Ledger.read(run / "ledger.jsonl"):
        if isinstance(entry.event, StageCompleted):
            result = entry.event.result
            plain = replace(
                result,
                checkpoint=None,
                train_seconds=0,
                eval_seconds=0,
                overhead_seconds=0,
                checkpoint_seconds=0,
            )
            results.append(replace(entry.event, result=plain))
        elif isinstance(entry.event, DECISIONS):
            told.append(entry.event)
    return told + sorted(results, key=lambda e: (e.result.genome, e.result.first_step))


def assert_same_end(run: Path, whole: Path) -> None:
    assert story(run) == story(whole)
    assert (run / "pareto.csv").read_bytes() == (whole / "pareto.csv").read_bytes()
    assert adapters(run) == adapters(whole)
    assert (run / "report.json").is_file()


def adapters(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in run.glob("best/*/*.safetensors")}


def assert_intact(run: Path) -> None:
    """The ledger's lines are whole, and nothing is left half-written."""
    assert RunLayout(run).half_written() == []
    content = (run / "ledger.jsonl").read_bytes()
    assert content.endswith(b"\n")
    Ledger.read(run / "ledger.jsonl")


# -- simulated: in the driver's own process --------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return api.evolve(simulated_config()).layout.root


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "sim.yaml"
    path.write_text(dump_yaml(simulated_config()), encoding="utf-8")
    return str(path)


CASES = [
    ("full", "GenerationStarted", "disk", "checkpoints/"),
    ("full", "StageDecided", "disk", "checkpoints/"),
    ("full", "FrontMeasured", "disk", "(ledger.jsonl|report.json)"),  # by the last block's room
    ("full", "RunCompleted", "disk", "report.json"),
    ("read-only", "StageCompleted", "checkpoints", "checkpoints/"),
    ("read-only", "FrontMeasured", "run", "ledger.jsonl"),
    ("read-only", "RunCompleted", "run", "report.json"),
    ("16000", "RunStarted", "disk", "ledger.jsonl"),
    ("100", "GenerationCompleted", "disk", "ledger.jsonl"),
    ("1000", "RunCompleted", "disk", "report.json"),
]
REASONS = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.mark.parametrize(("how", "event", "where", "names"), CASES)
def test_a_run_whose_disk_goes_bad_ends_with_four_and_resumes_to_the_same_end(
    disk: Path, config: str, whole: Path, how: str, event: str, where: str, names: str
) -> None:
    run = disk / "runs" / "sim"
    folder = {"disk": disk, "run": run, "checkpoints": run / "checkpoints"}[where]
    output = coralx(disk, "evolve", config, code=4, spoiled=(how, event, str(folder)))
    assert re.search(re.escape(f"{run}/") + names, output)
    assert REASONS.get(how, "File too large") in output
    assert "coralx evolve --resume sim" in output
    assert_intact(run)
    (disk / FILLER).unlink(missing_ok=True)
    coralx(disk, "evolve", "--resume", "sim", "--quiet")
    assert_same_end(run, whole)


@pytest.mark.parametrize(("how", "names"), [("full", "owner.json"), ("200", "config.yaml")])
def test_a_run_that_cannot_even_begin_leaves_its_name_free(
    disk: Path, config: str, whole: Path, how: str, names: str
) -> None:
    output = coralx(disk, "evolve", config, code=4, spoiled=(how, "begin", str(disk)))
    run = disk / "runs" / "sim"
    assert f"{run}/{names}" in output
    assert RunLayout(run).half_written() == []
    (disk / FILLER).unlink(missing_ok=True)
    coralx(disk, "evolve", config, "--name", "sim", "--quiet")
    assert_same_end(run, whole)


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def test_a_read_only_disk_refuses_start_and_resume(disk: Path, config: str, whole: Path) -> None:
    remount(disk, "ro")
    assert f"{disk}/runs" in coralx(disk, "evolve", config, code=4)
    remount(disk, "rw")
    coralx(disk, "evolve", config, code=4, spoiled=("100", "StageDecided", str(disk)))
    run = disk / "runs" / "sim"
    with (run / "ledger.jsonl").open("ab") as file:
        file.write(b'{"seq":')
    before = (run / "ledger.jsonl").read_bytes()
    remount(disk, "ro")
    assert f"{run}/run.lock" in coralx(disk, "evolve", "--resume", "sim", code=4)
    assert (run / "ledger.jsonl").read_bytes() == before
    remount(disk, "rw")
    coralx(disk, "evolve", "--resume", "sim", "--quiet")
    assert_same_end(run, whole)


def test_a_full_disk_refuses_a_resume_and_leaves_all_as_it_was(
    disk: Path, config: str, whole: Path
) -> None:
    coralx(disk, "evolve", config, code=4, spoiled=("full", "StageDecided", str(disk)))
    run = disk / "runs" / "sim"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    output = coralx(disk, "evolve", "--resume", "sim", code=4)
    assert "No space left" in output
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (disk / FILLER).unlink()
    coralx(disk, "evolve", "--resume", "sim", "--quiet")
    assert_same_end(run, whole)


def test_doctor_checks_a_run_on_a_read_only_disk(disk: Path, config: str) -> None:
    coralx(disk, "evolve", config, "--quiet")
    remount(disk, "ro")
    assert "OK: no damage." in coralx(disk, "doctor", "sim")
    remount(disk, "rw")


# -- is there room at all? -------------------------------------------------------------------------

FOOTPRINT = Footprint(
    base_parameters=1000,
    base_bytes=4000,
    hidden_size=100,
    intermediate_size=400,
    layers=1,
    linear=(("q_proj", 100, 100), ("v_proj", 100, 100)),
)
SPACE = {"rank": {"choices": [2, 8]}, "target_modules": {"choices": [["q_proj"], "all-linear"]}}
SMALL, LARGE = 2 * 200 * 12, 8 * 400 * 12
"""Bytes of the smallest and the largest checkpoint, of which a third are weights."""


def sized(**sections: Any) -> Config:
    evolution = {"population_size": 4, "generations": 1}
    return make_config(**{"search_space": SPACE, "evolution": evolution, **sections})


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def leave(size: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))

    return leave


def test_less_than_the_first_generation_is_refused_with_both_figures(
    free: Callable[[int], None],
) -> None:
    least = 4 * SMALL + SMALL // 3
    free(least - 1)
    with pytest.raises(SetupError) as caught:
        require_room(sized(), FOOTPRINT)
    assert caught.value.exit_code == 4
    assert f"at least {gib(least)}" in caught.value.message
    assert f"{gib(least - 1)} are free" in caught.value.message
    assert "population_size" in caught.value.hint
    free(least)
    assert "up to" in str(require_room(sized(), FOOTPRINT))


def test_less_than_all_may_take_is_a_warning(free: Callable[[int], None]) -> None:
    most = disk_need(sized(), FOOTPRINT).most
    assert most == 12 * LARGE + 4 * LARGE // 3  # a population of 4 derived ones among them
    free(most - 1)
    assert f"up to {gib(most)}" in str(require_room(sized(), FOOTPRINT))
    free(most)
    assert require_room(sized(), FOOTPRINT) is None
    free(0)
    assert require_room(sized(), None) is None  # nothing is trained


def test_ranks_that_grow_begin_small() -> None:
    grows = sized(hyperband_config={"rank_growth": "published"})
    assert 2 * disk_need(grows, FOOTPRINT).least == disk_need(sized(), FOOTPRINT).least


def test_a_resumed_run_needs_what_it_has_not_written_yet(
    free: Callable[[int], None], tmp_path: Path
) -> None:
    layout = RunLayout(tmp_path)
    most = disk_need(sized(), FOOTPRINT).most
    folder = layout.checkpoint("a", "S0")
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(LARGE))
    free(most - LARGE)
    assert require_room(sized(), FOOTPRINT, layout) is None
    free(most - LARGE - 1)
    assert require_room(sized(), FOOTPRINT, layout) is not None
    free(SMALL - 1)
    with pytest.raises(SetupError):
        require_room(sized(), FOOTPRINT, layout)


@dataclass
class Counting(Silent):
    """Counts the checkpoints while they are at their most: when a stage is decided."""

    checkpoints: Path
    most: int = 0
    said: list[str] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        if isinstance(event, StageDecided):
            self.most = max(self.most, len(list(self.checkpoints.glob("*/*"))))

    def on_signal(self, signal: StatusUpdate) -> None:
        self.said += [signal] if isinstance(signal, str) else []


@pytest.mark.parametrize("generations", [1, 3])
@pytest.mark.parametrize("keep", ["needed", "all"])
def test_no_run_keeps_more_checkpoints_than_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, generations: int
) -> None:
    monkeypatch.chdir(tmp_path)
    config = simulated_config(
        evolution={"population_size": 6, "generations": generations},
        runtime={"backend": "simulated", "keep_checkpoints": keep},
    )
    view = Counting(tmp_path / "runs" / "sim" / "checkpoints")
    api.evolve(config, "sim", view)
    estimate = disk_need(config, FOOTPRINT).checkpoints
    assert 0.7 * estimate <= view.most <= estimate


def test_a_warning_of_the_disk_reaches_the_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("coralx.api.session.require_room", lambda *_: "little room")
    view = Counting(tmp_path)
    api.evolve(simulated_config(), "sim", view)
    assert "warning: little room" in view.said


def test_a_disk_too_small_for_the_first_generation_is_refused_before_a_folder_is_made(
    tmp_path: Path, tiny_config: dict[str, Any]
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config))
    with tmpfs(tmp_path / "small", "20k") as folder:
        output = coralx(folder, "evolve", str(path), *HERE, code=4)
        assert "at least 0.0 MiB" in output
        assert f"are free on the disk of {folder}/runs" in output
        assert list(folder.iterdir()) == []


# -- with real adapters: in a worker's process -----------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_search: dict[str, Any]) -> Path:
    """A run of one generation on the tiny base that nobody disturbed, beside its tiny.yaml."""
    folder = tmp_path_factory.mktemp("undisturbed")
    search = {
        **tiny_search,
        "evolution": {"population_size": 4, "generations": 1},
        "runtime": {"workers": 1, "threads_per_worker": 1},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(search))
    coralx(folder, "evolve", "tiny.yaml", "--quiet", *HERE)
    return folder / "runs" / "tiny"


REAL_CASES = [
    # less than the larger of an adapter's files
    pytest.param("12000", "begin", "checkpoints/", marks=pytest.mark.slow),
    ("full", "StageDecided", "checkpoints/"),
    pytest.param("full", "FrontMeasured", "scores/", marks=pytest.mark.slow),
    pytest.param("full", "RunCompleted", "best/", marks=pytest.mark.slow),
    pytest.param("1500", "RunCompleted", "best/", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("how", "event", "names"), REAL_CASES)
def test_a_worker_whose_disk_goes_bad_ends_the_run_and_no_genome_fails(
    disk: Path, trained: Path, how: str, event: str, names: str
) -> None:
    path = str(trained.parents[1] / "tiny.yaml")
    run = disk / "runs" / "tiny"
    output = coralx(disk, "evolve", path, code=4, spoiled=(how, event, str(disk)))
    assert f"{run}/{names}" in output
    assert ("No space left on device" if how == "full" else "File too large") in output
    assert "coralx evolve --resume tiny" in output
    assert "trying again" not in output
    assert_intact(run)
    assert b"GenomeFailed" not in (run / "ledger.jsonl").read_bytes()
    (disk / FILLER).unlink(missing_ok=True)
    coralx(disk, "evolve", "--resume", "tiny", "--quiet", *HERE)
    assert_same_end(run, trained)
