"""`coralx doctor RUN`: every file of a run truncated, with a flipped bit, or gone.

One file, as all its tests look at copies of the same two runs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.doctor import run_check as soundness
from coralx.doctor.run_check import check_run, is_damaged
from coralx.doctor.run_files import Finding
from coralx.errors import Interrupted
from coralx.records.events import RunStarted
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from coralx.storage.lock import owning
from coralx.system.files import MANIFEST, write_atomically, write_folder
from tests.support.factories import make_config, simulated_config
from tests.support.simulated_runs import KillAfter

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("simulated"))
        return api.evolve(simulated_config()).layout.root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_search: dict[str, Any]) -> Path:
    """A run with real adapters, one generation, in this process."""
    search = {
        **tiny_search,
        "evolution": {"population_size": 4, "generations": 1, "derive": {"share": 0}},
        "runtime": {"executor": "in-process", "threads_per_worker": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        return api.evolve(make_config(**search)).layout.root


def copied(run: Path) -> RunLayout:
    """The run beside the one that is shared by all tests, for a test to damage."""
    shutil.copytree(run, Path("runs") / run.name)  # with its times
    return RunLayout(Path("runs") / run.name)


def contents(run: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(run)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in (run, *run.rglob("*"))
    }


def faults(layout: RunLayout) -> list[Finding]:
    """What `check_run` finds beside what is in order; it must not change anything."""
    before = contents(layout.root)
    findings = check_run(layout)
    assert contents(layout.root) == before
    return [finding for finding in findings if finding.state != "ok"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def assert_about(finding: Finding, layout: RunLayout, path: Path) -> None:
    """A manifest that is wrong speaks of the folder, or of a file in it."""
    name = layout.relative(path.parent if path.name == MANIFEST else path)
    assert finding.file.startswith(name)


WAYS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "flipped": flip,
    "missing": Path.unlink,
}


def test_a_sound_run_is_found_sound(simulated: Path, trained: Path) -> None:
    for run in (simulated, trained):
        findings = check_run(copied(run))
        assert [finding for finding in findings if finding.state != "ok"] == []
    found = {finding.file: finding.found for finding in findings}
    assert {"config.yaml", "ledger.jsonl", "report.json", "pareto.csv"} < found.keys()
    assert found["checkpoints"] == "5 of 5 intact"  # with the head's
    assert found["scores"].endswith("intact")
    assert any(file.startswith("best/") for file in found)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("config.yaml", "from the ledger"),
        ("checkpoints/*/*/trainer_state.json", "run is complete"),
        (f"checkpoints/*/*/{MANIFEST}", "run is complete"),
        ("report.json", "A resume writes it"),
        ("pareto.csv", "A resume writes it"),
    ],
)
def test_each_file_of_a_run_is_missed(simulated: Path, way: str, pattern: str, says: str) -> None:
    layout = copied(simulated)
    path = sorted(layout.root.glob(pattern))[0]
    WAYS[way](path)
    found = [f for f in faults(layout) if "not checked" not in f.found]
    assert len(found) == 1, found
    assert_about(found[0], layout, path)
    harmless = way == "missing" and pattern in ("config.yaml", "report.json", "pareto.csv")
    assert found[0].state == ("notice" if harmless else "damaged")
    assert says in found[0].way_out


def test_a_lost_checkpoint_of_a_derived_genome_is_derived_again() -> None:
    search = {"population_size": 6, "generations": 1, "derive": {"share": 0.2}}
    outcome = api.evolve(simulated_config(evolution=search), "run")
    layout = outcome.layout
    assert faults(layout) == []
    derived = [m for m in outcome.report["front"] if m["derived"] is not None]
    folder = layout.checkpoint(derived[0]["genome"], derived[0]["stage"])
    shutil.rmtree(folder)
    (found,) = faults(layout)
    assert found.file == layout.relative(folder)
    assert found.way_out == (
        "best/ has its adapter; if that is missing too, a resume derives it again."
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("checkpoints/g*/*/adapter_model.safetensors", "a resume trains it again"),
        ("checkpoints/g*/*/optimizer.safetensors", "a resume trains it again"),
        ("checkpoints/_head/*/adapter_model.safetensors", "complete and does not need it"),
        ("best/*/adapter_model.safetensors", "copies it again from its checkpoint"),
        ("best/*/adapter_config.json", "copies it again from its checkpoint"),
        (f"best/*/{MANIFEST}", "copies it again from its checkpoint"),
        ("scores/*.safetensors", "has the comparisons made with it"),
    ],
)
def test_each_file_of_a_run_that_trained_is_missed(
    trained: Path, way: str, pattern: str, says: str
) -> None:
    layout = copied(trained)
    front = {adapter.name for adapter in layout.best.iterdir()}
    paths = sorted(layout.root.glob(pattern))
    path = next(p for p in paths if "g*" not in pattern or p.parts[-3] in front)
    WAYS[way](path)
    (found,) = faults(layout)
    assert_about(found, layout, path)
    assert found.state == "damaged"
    assert says in found.way_out


def test_a_damaged_line_of_the_ledger_is_named(simulated: Path) -> None:
    layout = copied(simulated)
    content = layout.ledger.read_bytes()
    before, _, after = content.rpartition(b'"auroc"')
    layout.ledger.write_bytes(before + b'"aurok"' + after)
    number = before.count(b"\n") + 1
    found = next(f for f in faults(layout) if f.state == "damaged")
    assert found.file == f"ledger.jsonl, line {number}"
    assert "cut the file off before that line" in found.way_out
    layout.ledger.unlink()
    (found,) = (f for f in faults(layout) if f.state == "damaged")
    assert (found.file, found.found) == ("ledger.jsonl", "missing")


def test_a_ledger_of_a_later_format_is_damage_with_its_own_way_out(simulated: Path) -> None:
    layout = copied(simulated)
    first = Ledger.read(layout.ledger)[0].event
    assert isinstance(first, RunStarted)
    layout.ledger.unlink()
    Ledger(layout.ledger).append(replace(first, format=99))
    found = next(f for f in faults(layout) if f.state == "damaged")
    assert (found.file, "format 99" in found.found) == ("ledger.jsonl", True)
    assert "newer CoralX" in found.way_out


def test_a_torn_last_line_is_a_notice_and_a_resume_drops_it(simulated: Path) -> None:
    layout = copied(simulated)
    layout.ledger.write_bytes(layout.ledger.read_bytes()[:-9])
    found = faults(layout)
    assert {f.state for f in found} == {"notice"}
    assert found[0].file.startswith("ledger.jsonl, line ")
    assert found[0].way_out == "A resume drops it."
    assert "report.json" in {f.file for f in found}  # it tells of a completed run
    api.resume(layout)
    assert faults(layout) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed: 7", "seed: 8", "in experiment.seed"),
        ("name: S1_shakeout", "name: S1_shakeour", "in hyperband_config.training_stages"),
        ("direction: maximize", "direction: minimize", "in objectives"),
    ],
)
def test_a_valid_config_that_is_not_the_run_s_is_damage(
    simulated: Path, old: str, new: str, says: str
) -> None:
    layout = copied(simulated)
    text = layout.config.read_text(encoding="utf-8")
    assert old in text
    layout.config.write_text(text.replace(old, new), encoding="utf-8")
    (found,) = (f for f in faults(layout) if f.state == "damaged")
    assert says in found.found


def test_a_checkpoint_that_is_needed_and_gone_is_damage(simulated: Path) -> None:
    layout = copied(simulated)
    (genome,) = json.loads(layout.report.read_text())["front"][:1]
    folder = layout.checkpoint(genome["genome"], genome["stage"])
    shutil.rmtree(folder)
    (found,) = faults(layout)
    assert (found.state, found.file) == ("damaged", layout.relative(folder))


def test_best_must_hold_the_front_and_nothing_else(trained: Path) -> None:
    layout = copied(trained)
    first, *_ = sorted(layout.best.iterdir())
    first.rename(layout.best / "stranger")
    found = faults(layout)
    assert [(f.state, f.file) for f in found] == [
        ("notice", "best/stranger"),
        ("damaged", f"best/{first.name}"),
    ]
    api.resume(layout)
    assert faults(layout) == []


@pytest.mark.parametrize("pattern", ["best/*/*.safetensors", "report.json", "pareto.csv"])
def test_what_a_resume_is_said_to_mend_it_mends(trained: Path, pattern: str) -> None:
    layout = copied(trained)
    flip(sorted(layout.root.glob(pattern))[0])
    assert is_damaged(check_run(layout))
    api.resume(layout)
    assert faults(layout) == []


def test_half_written_files_and_who_is_at_work_are_noticed(simulated: Path) -> None:
    layout = copied(simulated)
    left = [layout.root / ".report.json.7.tmp", layout.checkpoints / "g" / ".S0.7.tmp"]
    left[1].mkdir(parents=True)
    left[0].touch()
    found = faults(layout)
    assert {f.file for f in found} == {layout.relative(path) for path in left}
    assert {(f.state, f.way_out) for f in found} == {("notice", "A resume removes it.")}
    with owning(layout):
        (found_owner, *_) = faults(layout)
        assert f"in use by process {os.getpid()} on " in found_owner.found
    layout.owner.write_text('{"pid": 7, "host": "elsewhere"}')
    assert "no longer owns the run" in faults(layout)[0].found
    api.resume(layout)
    assert faults(layout) == []


def test_what_comes_and_goes_in_a_run_in_progress_is_no_damage(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what every look finds damaged is so; without anybody at work, one look does."""
    layout = copied(simulated)
    monkeypatch.setattr(soundness, "BETWEEN_LOOKS", 0.0)
    looks: list[list[str]] = []

    def passing(*_: object) -> Iterator[Finding]:
        now = looks.pop(0)
        if now == ["gone"]:
            raise FileNotFoundError("checkpoints/g")
        yield from (Finding("damaged", file, "incomplete") for file in now)

    monkeypatch.setattr(soundness, "checkpoints", passing)
    for seen, damaged in (
        ([["a", "b"], ["b", "c"], ["b"], ["b"]], {"b"}),
        ([["a"], ["b"], [], []], set()),
        ([["gone"], ["a"], ["gone"], ["a"]], {"a"}),
        ([["gone"], [], ["x"]], set()),
    ):
        looks[:] = seen
        with owning(layout):
            found = check_run(layout)
        assert {f.file for f in found if f.state == "damaged"} == damaged
        assert any("the run is in progress" in f.found for f in found)
    looks[:] = [["a"], []]
    assert {f.file for f in check_run(layout) if f.state == "damaged"} == {"a"}


def test_a_temporary_folder_that_appears_while_one_looks_is_no_checkpoint(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = copied(simulated)
    genome = next(layout.checkpoints.iterdir())
    monkeypatch.setattr(RunLayout, "half_written", lambda _: [])  # listed before it was there
    for folder in (genome, layout.partials / genome.name, layout.best):
        (folder / ".S1_shakeout.7.tmp").mkdir(parents=True)
    assert faults(layout) == []


def test_a_report_that_is_older_than_the_ledger_is_a_notice(simulated: Path) -> None:
    layout = copied(simulated)
    flip(layout.pareto)
    os.utime(layout.pareto, (1, 1))
    (found,) = faults(layout)
    assert (found.state, found.file) == ("notice", "pareto.csv")


SECTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "brackets": {"hyperband_config": {"brackets": 3}},
    "copies": {"evolution": {"population_size": 8, "generations": 2, "pbt_quantile": 0.5}},
    "asynchronous": {"hyperband_config": {"promotion": "asynchronous"}},
    "beside": {
        "runtime": {"backend": "simulated", "baseline": True, "verify_front": True},
    },
}


@pytest.mark.parametrize("strategy", SECTIONS)
def test_no_run_that_was_killed_is_called_damaged(strategy: str) -> None:
    config = simulated_config(**SECTIONS[strategy])
    for events in (1, 2, 3, 9, 20, 31, 42, 53, 57):
        name = f"cut-{events}"
        try:
            api.evolve(config, name, KillAfter(events))
        except Interrupted:
            assert faults(RunLayout(Path("runs") / name)) == []


def test_what_a_stage_under_way_has_kept_can_be_done_without(simulated: Path) -> None:
    layout = copied(simulated)
    kept = layout.partial("g00-00-aaaa", "S2_serious")
    write_folder(kept, lambda folder: write_atomically(folder / "trainer_state.json", b"{}"))
    (found,) = (f for f in check_run(layout) if f.file.startswith("partial/"))
    assert (found.state, found.found) == ("ok", "intact: a resume goes on from it")
    (kept / "trainer_state.json").write_text("{ }")
    (found,) = faults(layout)
    assert (found.state, found.file) == ("notice", "partial/g00-00-aaaa/S2_serious")


@pytest.mark.parametrize("seed", range(8))
def test_an_asynchronous_run_is_sound_whoever_was_left_behind(seed: int) -> None:
    config = simulated_config(
        experiment={"name": "sim", "seed": seed},
        evolution={"population_size": 5, "generations": 8},
        hyperband_config={"promotion": "asynchronous"},
    )
    assert faults(api.evolve(config).layout) == []


# -- the command line ------------------------------------------------------------------------------


@pytest.fixture
def doctor(command: Any) -> Any:
    return partial(command, "doctor")


def test_doctor_takes_a_run_by_name_by_folder_and_as_the_latest(
    doctor: Any, simulated: Path
) -> None:
    layout = copied(simulated)
    for name in ("sim", "runs/sim", str(layout.root), "latest"):
        said = doctor(name)
        assert (said.code, "OK: no damage." in said.out) == (0, True)
    flip(next(layout.checkpoints.glob("*/*/*.json")))
    layout.report.unlink()
    said = doctor("sim")
    assert said.code == 4
    assert "DAMAGED: 1 file, 1 notice." in said.out
    found = json.loads(doctor("sim", "--json").out)
    assert (found["run"], found["damaged"]) == ("sim", True)
    states = [finding["state"] for finding in found["findings"]]
    assert (states.count("damaged"), states.count("notice")) == (1, 1)


def test_doctor_checks_a_run_that_has_lost_its_ledger(doctor: Any, simulated: Path) -> None:
    copied(simulated).ledger.unlink()
    said = doctor("sim")
    assert (said.code, "ledger.jsonl: missing" in said.out) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sim", "--gpu-check"], "--gpu-check"),
        (["sim", "--set", "budget.max_steps=1"], "--set"),
        (["nowhere"], "'nowhere' is neither a run folder"),
        (["missing.yaml"], "missing.yaml"),
    ],
)
def test_what_does_not_go_with_a_run_is_refused(
    doctor: Any, simulated: Path, arguments: list[str], says: str
) -> None:
    copied(simulated)
    said = doctor(*arguments)
    assert (said.code, says in said.err) == (2, True)
