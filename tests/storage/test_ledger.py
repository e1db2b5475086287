"""The run folder: its memory, its names, its lock, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from coralx.errors import DamagedRunError, SetupError, UsageError
from coralx.records.events import (
    CODES,
    FORMER_CODES,
    AttemptFailed,
    BudgetSpent,
    CheckpointRestored,
    Event,
    FrontCompared,
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeFailed,
    MeasurementFailed,
    RunCompleted,
    RunResumed,
    RunStarted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
    WorkerStarted,
    WorkerStopped,
)
from coralx.records.genomes import Genes, Genome
from coralx.records.results import Comparison, Divergence, Interval, Measurement, StageResult, Trend
from coralx.records.run_facts import Settings
from coralx.records.serialization import from_json, to_json
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Stop, Verdict
from coralx.storage.checkpoints import is_intact, prune, write_best
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Ledger
from coralx.storage.lock import claiming, owning
from coralx.system.files import (
    MANIFEST,
    canonical_json,
    verify_folder,
    write_atomically,
    write_folder,
)
from tests.support.factories import make_facts, make_genome, make_result

EVENTS: tuple[Event, ...] = (
    RunStarted(
        format=1,
        run="täst",
        mode="simulation",
        seed=2**63 - 1,
        facts=make_facts(),
        settings=Settings(workers=2, threads_per_worker=1, precision="fp32"),
        versions={"python": "3.11"},
        hardware={"cores": 2, "processor": "x"},
        startup_seconds=0.1,
    ),
    WorkerStarted(worker=0, pid=17, device="cpu", base_loads=1, load_seconds=1e-05),
    GenerationStarted(
        0,
        (
            make_genome("a"),
            Genome("b", 1, Genes(target_modules=("query", "value")), ("a",), "a"),
        ),
    ),
    StageCompleted(
        0,
        make_result(
            "a",
            {"auroc": 0.1 + 0.2, "loss_slope": -1e-05, "f1": None},
            loss_trend=Trend(-1e-05, -2e-05, 1e-07),
            checkpoint="/x/a/S0",
        ),
    ),
    StageCompleted(0, make_result("b", divergence=Divergence(3, "loss"))),
    StageCompleted(
        0,
        replace(
            make_result("b", divergence=Divergence(3, "loss", "exploded", 1e300, 0.7)),
            curve=(0.1 + 0.2, 1e-9),
        ),
    ),
    CheckpointRestored(0, make_result("a", checkpoint="/x/a/S0")),
    GenomeFailed(0, "c", "S0", "killed\nby the kernel"),
    StageDecided(
        0,
        "S0",
        (
            Promote("a"),
            Finish("d"),
            Cut("e", place=3, quota=2),
            Stop("b", "loss is not finite", None, 3),
            Fail("c", "died"),
        ),
        not_judged=("a",),
        warnings=("too strict",),
    ),
    GenerationCompleted(0, ("a", "d")),
    RunResumed(0.5, 2, 1.25, {"evolution": {"generations": 3, "elite_fraction": 0.1}}),
    FrontMeasured(Measurement("a", {"auroc": 0.9}, {"auroc": Interval(0.9, None, 1.0)})),
    FrontMeasured(Measurement(None, {}, {}, scores="5c07e5")),
    FrontCompared((Comparison("a", None, "auroc", 0.1, -0.0, 0.2),)),
    MeasurementFailed(None, "a row is too long"),
    AttemptFailed("a", "S0", 1.5),
    WorkerStopped(worker=0, base_loads=1, jobs=4),
    RunCompleted(("a",)),
    TrainedBeside(make_result("_baseline", {"auroc": 0.5})),
    BudgetSpent("budget.max_steps = 5"),
)


def written(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for event in EVENTS:
        ledger.append(event)
    return path


def damage_in(path: Path) -> str:
    with pytest.raises(DamagedRunError) as caught:
        Ledger.read(path)
    assert caught.value.exit_code == 4
    return caught.value.message


# -- the ledger ----------------------------------------------------------------------------------


def test_the_examples_cover_every_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


CODES_FOR_EVER = {
    "AttemptFailed", "BudgetSpent", "CheckpointRestored", "FrontCompared", "FrontMeasured",
    "GenerationCompleted", "GenerationStarted", "GenomeFailed", "MeasurementFailed",
    "RunCompleted", "RunResumed", "RunStarted", "StageCompleted", "StageDecided",
    "TrainedBeside", "WorkerStarted", "WorkerStopped",
}  # fmt: skip
"""As ledgers have them since the first version: none may go or change, whatever classes are called.
A new event adds its own."""


def test_every_event_has_one_code_and_no_code_ever_changes() -> None:
    assert set(CODES.values()) == set(get_args(Event))
    assert len(set(CODES.values())) == len(CODES)
    assert CODES.keys() == CODES_FOR_EVER
    assert dict(FORMER_CODES) == {"BaselineTrained": TrainedBeside}


@pytest.fixture
def renamed_classes() -> Iterator[None]:
    names = [(cls, cls.__name__) for cls in get_args(Event)]
    for cls, name in names:
        cls.__name__ = f"Renamed{name}"
    yield
    for cls, name in names:
        cls.__name__ = name


@pytest.mark.usefixtures("renamed_classes")
def test_a_class_may_be_renamed_and_its_code_stays(tmp_path: Path) -> None:
    path = written(tmp_path)
    codes = [json.loads(line)["type"] for line in path.read_text("utf-8").splitlines()]
    assert set(codes) == CODES_FOR_EVER
    assert codes[:4] == ["RunStarted", "WorkerStarted", "GenerationStarted", "StageCompleted"]
    assert tuple(Ledger(path)) == EVENTS


def test_verdicts_are_told_apart_by_words_that_never_change() -> None:
    kinds = {cls.kind for cls in get_args(Verdict)}
    assert kinds == {"promote", "replace", "finish", "cut", "stop", "fail"}


def test_an_event_of_a_newer_version_is_named_and_left_alone(
    tmp_path: Path,
) -> None:
    path = written(tmp_path)
    *lines, last = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(last) | {"type": "RunForked"}
    del entry["checksum"]
    entry["checksum"] = hashlib.sha256(canonical_json(entry).encode()).hexdigest()
    path.write_bytes(b"".join(lines) + (canonical_json(entry) + "\n").encode())
    before = path.read_bytes()
    with pytest.raises(DamagedRunError) as caught:
        Ledger(path)
    assert caught.value.message == f"{path}, line {len(EVENTS)}: unknown event 'RunForked'"
    assert "A newer version of CoralX" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_goes_through_json_and_back(event: Event) -> None:
    text = canonical_json(to_json(event))
    assert from_json(type(event), json.loads(text)) == event


def test_results_from_before_stages_could_be_left_early_are_read() -> None:
    written = to_json(make_result("b", divergence=Divergence(3, "loss")))
    del written["curve"]
    for key in ("kind", "value", "against"):
        del written["divergence"][key]
    read = from_json(StageResult, written)
    assert read.curve == ()
    assert read.divergence == Divergence(3, "loss", "non-finite", None, None)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70))
def test_figures_go_through_json_exactly(figure: float, large: int) -> None:
    result = make_result("a", {"auroc": figure}, last_step=large)
    again = from_json(StageResult, json.loads(canonical_json(to_json(result))))
    assert again == result
    assert math.copysign(1, again.metrics["auroc"] or 0.0) == math.copysign(1, figure or 0.0)


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_figure_that_is_no_number_never_reaches_the_ledger(tmp_path: Path, figure: float) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append(RunCompleted(()))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        ledger.append(RunResumed(figure, 1))
    assert path.read_bytes() == before
    assert len(ledger.entries) == 1


def test_record_of_another_shape_is_refused() -> None:
    with pytest.raises(ValidationError):
        from_json(GenerationCompleted, {"generation": "first", "population": []})


def test_reread_ledger_equals_the_written_one(tmp_path: Path) -> None:
    path = written(tmp_path)
    again = Ledger(path)
    assert tuple(again) == EVENTS
    assert [entry.seq for entry in again.entries] == list(range(len(EVENTS)))
    assert again.entries == Ledger.read(path)
    assert path.read_bytes().count(b"\n") == len(EVENTS)


def test_appending_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    path = written(tmp_path)
    Ledger(path).append(RunResumed(1.0, 1))
    assert tuple(Ledger(path)) == (*EVENTS, RunResumed(1.0, 1))


def test_observers_hear_an_event_once_it_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    heard = []
    ledger = Ledger(path)
    ledger.subscribe(lambda event: heard.append((event, len(Ledger.read(path)))))
    for event in EVENTS[:3]:
        ledger.append(event)
    assert heard == [(event, count) for count, event in enumerate(EVENTS[:3], start=1)]


def test_ledger_without_a_path_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger()
    ledger.append(EVENTS[0])
    assert tuple(ledger) == EVENTS[:1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_torn_last_line_is_dropped_and_overwritten(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path)
    *lines, last = path.read_bytes().splitlines(keepends=True)
    torn = b"".join(lines) + last[:kept]
    path.write_bytes(torn)
    assert [entry.event for entry in Ledger.read(path)] == list(EVENTS[:-1])
    assert path.read_bytes() == torn  # reading changes nothing
    ledger = Ledger(path)
    ledger.append(EVENTS[-1])
    assert tuple(Ledger(path)) == EVENTS


def test_any_flipped_byte_is_damage_naming_file_and_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(len(lines[1])):
        broken = bytearray(lines[1])
        broken[place] ^= 1
        path.write_bytes(b"".join([lines[0], bytes(broken), *lines[2:]]))
        assert f"{path}, line 2" in damage_in(path)


def test_flipped_byte_that_reads_as_the_same_number_is_damage_too(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    assert b":1e-05" in content
    path.write_bytes(content.replace(b":1e-05", b":1E-05", 1))
    assert f"{path}, line 2" in damage_in(path)


@pytest.mark.parametrize("missing", [0, 1, 5, len(EVENTS) - 2])
def test_missing_line_is_damage_naming_file_and_line(tmp_path: Path, missing: int) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:missing] + lines[missing + 1 :]))
    message = damage_in(path)
    assert f"{path}, line {missing + 1}" in message
    assert f"event {missing} is missing" in message


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"null\n", b"{}\n", b"\xff\xfe\n", b'{"a":NaN}\n']
)
def test_foreign_line_is_damage(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line, *lines[4:]]))
    assert f"{path}, line 4" in damage_in(path)


@pytest.mark.parametrize("line", [b"garbage\n", b"\xff\xfe\n", b'{"a":1}\n', b""])
def test_damage_is_told_with_the_way_out(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for number, way_out in ((1, "choose another name, or remove"), (4, "cut the file off before")):
        path.write_bytes(b"".join([*lines[: number - 1], line, *lines[number:]]))
        with pytest.raises(DamagedRunError, match=f"line {number}: ") as caught:
            Ledger.read(path)
        assert way_out in caught.value.hint


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ([0, 2, 1], "line 2: out of order, it holds event 2, and event 1 is in line 3"),
        ([0, 1, 1, 2], "line 3: duplicated, it repeats line 2 (event 1)"),
        ([0, 1, 2, 0, 1, 2], "line 4: duplicated, it repeats line 1 (event 0)"),
        ([0, 3], "line 2: events 1 to 2 are missing"),
    ],
)
def test_swapped_duplicated_and_missing_lines_are_told_apart(
    tmp_path: Path, places: list[int], says: str
) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[place] for place in places))
    assert f"{path}, {says}" in damage_in(path)


@pytest.mark.parametrize("kind", ["folder", "link", "missing"])
def test_a_ledger_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ledger.jsonl"
    if kind == "folder":
        path.mkdir()
    if kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    assert str(path) in damage_in(path)
    if kind != "missing":
        with pytest.raises(DamagedRunError):
            Ledger(path)
        assert not (tmp_path / "nowhere").exists()


def test_folder_that_cannot_be_written_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"ledger\.jsonl: cannot be written"):
        Ledger(tmp_path / "gone" / "ledger.jsonl").append(EVENTS[0])


# -- files ---------------------------------------------------------------------------------------


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


def fill(folder: Path) -> None:
    (folder / "one.bin").write_bytes(b"\x00\x01")
    (folder / "two.txt").write_text("two", encoding="utf-8")


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


# -- names of runs -------------------------------------------------------------------------------


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


# -- the lock ------------------------------------------------------------------------------------

TRY_TO_OWN = """
import sys
from pathlib import Path
from coralx.errors import SetupError
from coralx.storage.layout import RunLayout
from coralx.storage.lock import owning
try:
    with owning(RunLayout(Path(sys.argv[1]))):
        print("owned")
except SetupError as error:
    print(error.message)
"""


def test_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "x")
    layout.root.mkdir()

    def attempt() -> str:
        command = [sys.executable, "-c", TRY_TO_OWN, str(layout.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with owning(layout):
        refused = attempt()
        assert "'x' is in use" in refused
        assert f"process {os.getpid()} " in refused
        assert layout.owner.exists()  # the refused one has not taken the owner's note away
    assert attempt() == "owned\n"
    assert not layout.owner.exists()


# -- checkpoints ---------------------------------------------------------------------------------


@given(
    st.sets(st.tuples(st.sampled_from("abc"), st.sampled_from(["S0", "S1"]))),
    st.sets(st.tuples(st.sampled_from("abcd"), st.sampled_from(["S0", "S1", "S2"]))),
)
@settings(max_examples=25, deadline=None)
def test_prune_keeps_exactly_what_is_needed(
    tmp_path_factory: pytest.TempPathFactory,
    present: set[tuple[str, str]],
    needed: set[tuple[str, str]],
) -> None:
    layout = RunLayout(tmp_path_factory.mktemp("run"))
    for genome, stage in present:
        folder = layout.checkpoint(genome, stage)
        folder.mkdir(parents=True)
        (folder / MANIFEST).touch()
    prune(layout, needed)
    left = {(path.parent.name, path.name) for path in layout.checkpoints.glob("*/*")}
    assert left == present & needed
    assert {path.name for path in layout.checkpoints.glob("*")} == {genome for genome, _ in left}


def test_prune_removes_what_a_killed_worker_left(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    write_folder(layout.checkpoint("a", "S0"), fill)
    (layout.checkpoints / "a" / ".S1.123.tmp").mkdir()
    prune(layout, {("a", "S0")})
    assert [path.name for path in layout.checkpoints.glob("a/*")] == ["S0"]


def test_checkpoint_is_intact_only_if_its_manifest_verifies(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    assert not is_intact(layout, "a", "S0")
    write_folder(layout.checkpoint("a", "S0"), fill)
    assert is_intact(layout, "a", "S0")
    (layout.checkpoint("a", "S0") / "one.bin").write_bytes(b"!")
    assert not is_intact(layout, "a", "S0")


def fill_adapter(folder: Path) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"):
        (folder / name).write_text(name, encoding="utf-8")


def test_front_is_handed_over_and_who_left_it_is_removed(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    for genome in "ab":
        write_folder(layout.checkpoint(genome, "S3"), fill_adapter)
    write_best(layout, ["a"], "S3")
    write_best(layout, ["b", "unwritten"], "S3")
    assert [folder.name for folder in layout.best.iterdir()] == ["b"]
    verify_folder(layout.best_adapter("b"))
    assert sorted(file.name for file in layout.best_adapter("b").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        MANIFEST,
    ]


def test_what_is_told_about_adapters_lies_beside_each_and_is_kept_up_to_date(
    tmp_path: Path,
) -> None:
    layout = RunLayout(tmp_path)
    for genome in "ab":
        write_folder(layout.checkpoint(genome, "S3"), fill_adapter)
    write_best(layout, ["a", "b"], "S3")  # as earlier versions did
    (layout.checkpoint("b", "S3") / "adapter_config.json").unlink()
    for labels in (["no", "yes"], ["ja", "nein"]):
        write_best(layout, ["a", "b"], "S3", {"labels": labels})
        for genome in "ab":
            best = layout.best_adapter(genome)
            verify_folder(best)
            assert json.loads((best / "coralx.json").read_text()) == {
                "genome": genome,
                "labels": labels,
            }
            assert (best / "adapter_config.json").read_text() == "adapter_config.json"
    before = (layout.best_adapter("a") / "coralx.json").stat().st_ino
    write_best(layout, ["a", "b"], "S3", {"labels": ["ja", "nein"]})
    assert (layout.best_adapter("a") / "coralx.json").stat().st_ino == before


def test_damaged_adapter_is_not_handed_over(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    write_folder(layout.checkpoint("a", "S3"), fill_adapter)
    (layout.checkpoint("a", "S3") / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DamagedRunError):
        write_best(layout, ["a"], "S3")
    assert not layout.best_adapter("a").exists()


def test_two_that_claim_one_name_at_once_get_two_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with claiming("x", chosen=False) as first, claiming("x", chosen=False) as second:
        assert (first.layout.name, second.layout.name) == ("x", "x-2")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left")])
def test_an_interrupted_append_leaves_the_ledger_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException] | OSError
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append(EVENTS[0])
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", Mock(side_effect=interruption))
        with pytest.raises((KeyboardInterrupt, SetupError)):
            ledger.append(EVENTS[1])
    assert path.read_bytes() == before
    ledger.append(EVENTS[2])
    assert list(Ledger(path)) == [EVENTS[0], EVENTS[2]]


def test_a_ledger_of_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    first = EVENTS[0]
    assert isinstance(first, RunStarted)
    Ledger(path).append(replace(first, format=99))
    assert "format 99" in damage_in(path)
