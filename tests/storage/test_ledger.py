"""The run folder: its memory, its names, its lock, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coralx.errors import DamagedRunError, SetupError
from coralx.records.events import (
    CODES,
    FORMER_CODES,
    Event,
    GenerationCompleted,
    RunCompleted,
    RunResumed,
    TrainedBeside,
)
from coralx.records.results import Divergence, StageResult
from coralx.records.serialization import from_json, to_json
from coralx.records.verdicts import Verdict
from coralx.storage.ledger import Ledger
from coralx.system.files import (
    canonical_json,
)
from tests.support.factories import make_result
from tests.support.ledgers import EVENTS, damage_in


def written(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for event in EVENTS:
        ledger.append(event)
    return path


def test_the_examples_cover_every_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


CODES_FOR_EVER = {
    "AttemptFailed", "BudgetSpent", "CheckpointRestored", "DerivationFailed", "FrontCompared",
    "FrontMeasured", "GenerationCompleted", "GenerationStarted", "GenomeDerived", "GenomeFailed",
    "MeasurementFailed",
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
    del written["curve"], written["skipped_steps"]
    for key in ("kind", "value", "against"):
        del written["divergence"][key]
    read = from_json(StageResult, written)
    assert (read.curve, read.skipped_steps) == ((), 0)
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
