"""Checkpoints that are handed over, and those that nobody needs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.errors import DamagedRunError, SetupError
from coralx.records.events import (
    RunStarted,
)
from coralx.storage.adapter_card import origins_of
from coralx.storage.checkpoints import is_intact, prune, write_best
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from coralx.storage.lock import claiming
from coralx.system.files import (
    MANIFEST,
    verify_folder,
    write_folder,
)
from tests.support.derived_runs import derived_run
from tests.support.ledgers import EVENTS, damage_in, fill


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


def test_beside_a_derived_adapter_lies_how_it_was_made(tmp_path: Path) -> None:
    layout, history = RunLayout(tmp_path), History(derived_run())
    front = ["a", "d00-02"]
    for genome in front:
        write_folder(layout.checkpoint(genome, "S1"), fill_adapter)
    write_best(layout, front, "S1", {"task": "x"}, origins_of(history, front))
    cards = {g: json.loads((layout.best_adapter(g) / "coralx.json").read_text()) for g in front}
    assert cards == {
        "a": {"genome": "a", "task": "x"},
        "d00-02": {
            "genome": "d00-02",
            "derived": {"operator": "scale", "from": ["d00-00"], "factor": 0.8},
            "trained": ["a"],
            "task": "x",
        },
    }


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
