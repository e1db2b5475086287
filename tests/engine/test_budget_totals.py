"""Budgets are totals over all resumes, also where a process was killed or a stage trained twice."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.config.runtime import Budget
from coralx.engine.budget import Allowance
from coralx.errors import Interrupted
from coralx.records.events import (
    CheckpointRestored,
    Event,
    RunCompleted,
    RunResumed,
    RunStarted,
    StageCompleted,
)
from coralx.records.jobs import Job
from coralx.records.results import Progress, StageResult
from coralx.records.run_facts import Facts, Settings
from coralx.storage import ledger as ledger_module
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Entry, Ledger
from coralx.storage.lock import BEAT_SECONDS, WorkSpan, owning
from coralx.storage.machine_time import MachineUse, machine_use
from coralx.system.files import write_atomically
from tests.support.factories import make_facts, make_result, simulated_config

BEFORE, AFTER = 40.0, 20.0
"""Seconds of each job before and after the one sign of life that it gives."""


class Clock:
    """Time that passes only when someone works or waits; `shift` is how far the time of day is
    wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        self.shift = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: self.now + self.shift)
        monkeypatch.setattr(ledger_module, "_now", self.written)

    def written(self) -> str:
        return datetime.fromtimestamp(self.now + self.shift, UTC).isoformat(timespec="milliseconds")


class Work:
    """Jobs of a minute each. Those of the numbers `interrupted` end in Ctrl-C, those `killed` in
    kill -9: the run folder is left as it was at that moment."""

    def __init__(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, on_gpu: bool = False
    ) -> None:
        self.jobs = 0
        self.interrupted: Collection[int] = ()
        self.killed: Collection[int] = ()
        self.jump = 0.0
        train, prepare = SimulatedBackend.train, SimulatedBackend.prepare

        def minute(backend: SimulatedBackend, job: Job, report: Any, beat: Any) -> StageResult:
            self.jobs += 1
            clock.now += BEFORE
            report(Progress(job.genome.id, job.stage, job.first_step, job.last_step, 0.7, 0.0))
            clock.now += AFTER
            clock.shift += self.jump
            if self.jobs in self.killed:
                shutil.copytree("runs/x", "as-it-was", copy_function=shutil.copyfile)
            if self.jobs in (*self.killed, *self.interrupted):
                raise KeyboardInterrupt
            return train(backend, job, lambda _: None, beat)

        def described(*arguments: Any) -> Facts:
            facts = prepare(*arguments)
            return replace(facts, device="cuda:0", device_count=2) if on_gpu else facts

        monkeypatch.setattr(SimulatedBackend, "train", minute)
        monkeypatch.setattr(SimulatedBackend, "prepare", described)


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def disturbed(budget: dict[str, Any], clock: Clock) -> api.Outcome:
    """The run x, taken up an hour after every time that it ended before its budget was spent."""
    config = simulated_config(budget=budget, evolution={"population_size": 8, "generations": 9})
    with pytest.raises(Interrupted):
        api.evolve(config, "x")
    while True:
        if Path("as-it-was").exists():
            shutil.rmtree("runs/x")
            Path("as-it-was").rename("runs/x")
        clock.now += 3600.0
        try:
            return api.resume(find_run("x"))
        except Interrupted:
            continue


@pytest.mark.parametrize("kind", ["max_minutes", "max_gpu_hours"])
def test_a_budget_of_time_counts_over_interruptions_and_kills(
    kind: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour: of the three killed jobs' minutes all is counted but what came after their
    last sign of life, so one more job fits in; pauses between processes never count."""
    work = Work(clock, monkeypatch, on_gpu=kind == "max_gpu_hours")
    work.killed, work.interrupted = (3, 4, 11), (7, 19)
    budget = {kind: 30.0 if kind == "max_minutes" else 0.5}
    outcome = disturbed(budget, clock)
    assert outcome.report["ended_by"] == f"budget.{kind} = {budget[kind]:g}"
    assert work.jobs == 30 + 3 * AFTER / (BEFORE + AFTER)
    lost = [e for e in Ledger.read_events(outcome.layout.ledger) if isinstance(e, RunResumed)]
    assert [event.lost_seconds for event in lost] == [BEFORE, BEFORE, 0.0, BEFORE, 0.0]
    assert outcome.report["wall_seconds"] == pytest.approx(1800.0, abs=0.01)
    clock.now += 3600.0
    assert api.resume(outcome.layout).report["ended_by"] is not None
    assert work.jobs == 31  # under the same limit nothing is trained any more
    more = api.run_config(outcome.layout, [f"budget.{kind}={2 * budget[kind]}"])
    api.resume(outcome.layout, more)
    assert work.jobs == 61


def test_steps_that_were_trained_again_count_again() -> None:
    most = 2500
    done = api.evolve(simulated_config(budget={"max_steps": 200}), "x")
    *_, last = [e.result for e in Ledger.read_events(done.layout.ledger) if completed(e)]
    folder = done.layout.checkpoint(last.genome, last.stage)
    (folder / "trainer_state.json").write_text("damaged")
    again = api.resume(done.layout, simulated_config(budget={"max_steps": most}))
    results = [e.result for e in Ledger.read_events(again.layout.ledger) if completed(e)]
    again_trained = [r for r in results if (r.genome, r.stage) == (last.genome, last.stage)]
    assert [result.steps for result in again_trained] == [last.steps] * 2
    history = History(Ledger.read_events(again.layout.ledger))
    assert history.trained_steps == sum(result.steps for result in results) <= most
    assert again.report["ended_by"] == f"budget.max_steps = {most}"


def completed(event: object) -> bool:
    return isinstance(event, StageCompleted | CheckpointRestored)


def test_hours_of_every_gpu_in_use_add_up_over_resumes_with_other_workers() -> None:
    """Two of four GPUs for 100 s; killed 30 s later; then three of them for 10 + 50 s."""
    facts = replace(make_facts(), device="cuda:0", device_count=4)
    started = RunStarted(1, "x", "hyperband", 7, facts, Settings(2, 1, "bf16"), {}, {}, 20.0)
    result = StageCompleted(0, make_result())
    told: list[tuple[int, Event]] = [
        (0, started),
        (80, result),
        (9000, RunResumed(10.0, 3, 30.0)),
        (9050, result),
    ]
    entries = [
        Entry(place, datetime.fromtimestamp(1e9 + second, UTC).isoformat(), event)
        for place, (second, event) in enumerate(told)
    ]
    use = machine_use(entries)
    assert use == MachineUse(190.0, 2 * 130.0 + 3 * 60.0, 2 * 130.0 + 3 * 60.0)
    # Three workers on one GPU of another machine.
    entries[2] = replace(entries[2], event=RunResumed(10.0, 3, 30.0, gpus=1))
    assert machine_use(entries) == replace(use, gpu_seconds=2 * 130.0 + 1 * 60.0)
    budget = Budget(max_gpu_hours=0.5)
    allowance = Allowance(budget, use.wall_seconds, use.gpu_seconds, since=5.0, gpus=3)
    assert allowance.deadline == 5.0 + (1800.0 - 440.0) / 3


def test_what_was_lost_is_what_came_after_the_ledgers_last_event() -> None:
    stint = WorkSpan(after=4, seconds=60.0)
    assert [stint.lost(last) for last in (3, 4, 5)] == [0.0, 60.0, 0.0]
    assert WorkSpan().lost(4) == 0.0


def test_an_owner_gives_signs_of_life_which_outlive_it_only_if_it_is_killed(
    tmp_path: Path, clock: Clock
) -> None:
    layout = RunLayout(tmp_path)
    with owning(layout) as owner:
        assert owner.killed == WorkSpan()
        clock.now += 3.0
        owner.reached(4)
        for _ in range(5):
            clock.now += 0.7 * BEAT_SECONDS
            clock.shift -= 3600.0  # somebody sets the clock back
            owner.beat()
        note = layout.owner.read_bytes()
    with owning(layout) as owner:
        assert owner.killed == WorkSpan()  # the first let go of it
    write_atomically(layout.owner, note)
    os.utime(layout.owner, (2e9, 2e9))  # as where the folder was copied
    with owning(layout) as owner:
        assert owner.killed == WorkSpan(4, 5 * 0.7 * BEAT_SECONDS)


@pytest.mark.parametrize(
    "note", ["", "[]", '{"pid": 1, "host": "h", "since": 5}', '{"after": 1, "seconds": null}']
)
def test_a_note_that_does_not_say_how_long_counts_nothing(tmp_path: Path, note: str) -> None:
    layout = RunLayout(tmp_path)
    layout.owner.write_text(note)
    with owning(layout) as owner:
        assert owner.killed == WorkSpan()


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_set_changes_no_time_of_a_run(
    hours: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It jumps with every job; a budget of half an hour holds the thirty jobs of a minute."""
    work = Work(clock, monkeypatch)
    work.jump = 3600.0 * hours
    outcome = api.evolve(
        simulated_config(
            budget={"max_minutes": 30.0}, evolution={"population_size": 8, "generations": 9}
        ),
        "x",
    )
    assert work.jobs == 30
    assert outcome.report["wall_seconds"] == pytest.approx(1800.0, abs=0.01)
    times = [entry.timestamp for entry in Ledger.read(outcome.layout.ledger)]
    assert abs(times[-1] - times[0]) > 7200.0 * 20


def test_events_without_a_monotonic_clock_never_count_below_zero() -> None:
    first = RunStarted(1, "x", "hyperband", 7, make_facts(), Settings(1, 1, "fp32"), {}, {}, 2.0)
    told: list[tuple[int, Event]] = [
        (9000, first),
        (1800, StageCompleted(0, make_result())),
        (1810, RunCompleted(())),
    ]
    entries = [
        Entry(place, datetime.fromtimestamp(1e9 + second, UTC).isoformat(), event)
        for place, (second, event) in enumerate(told)
    ]
    assert machine_use(entries).wall_seconds == 12.0
