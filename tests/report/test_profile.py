"""Where the time of a run went: from recorded events with clocks that were made up."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coralx.records.events import (
    AttemptFailed,
    Event,
    FrontMeasured,
    GenerationStarted,
    RunResumed,
    RunStarted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
    WorkerStarted,
)
from coralx.records.results import Measurement, StageResult
from coralx.records.run_facts import Footprint, Settings
from coralx.records.subjects import BASELINE
from coralx.report.matrix_products import step_flops
from coralx.report.profile import profile_of
from coralx.report.profile_table import print_profile
from coralx.storage.history import History
from coralx.storage.ledger import Entry, Ledger
from coralx.storage.machine_time import machine_use
from tests.support.factories import make_facts, make_genome, make_result

GOLDEN = Path(__file__).parents[1] / "golden"

FOOTPRINT = Footprint(
    base_parameters=1000,
    base_bytes=4000,
    hidden_size=8,
    intermediate_size=16,
    layers=1,
    linear=(("query", 8, 8), ("up", 8, 16)),
    logits_per_token=10,
)


def started(workers: int, *, device: str = "cpu", startup: float = 4.0) -> RunStarted:
    facts = replace(make_facts(), device=device, backend="peft", footprint=FOOTPRINT)
    settings = Settings(workers, 1, "fp32")
    return RunStarted(2, "r", "hyperband", 1, facts, settings, {}, {}, startup)


def ready(worker: int, load_seconds: float, start_seconds: float = 0.0) -> WorkerStarted:
    return WorkerStarted(worker, 17, "cpu", 1, load_seconds, start_seconds)


def trained(genome: str, parts: Sequence[float], stage: str = "S0") -> StageResult:
    """A result with seconds of training, evaluation, checkpoints, and whatever else."""
    train, evaluate, files, other = parts
    return replace(
        make_result(genome, {"trainable_parameters": 64.0}, stage=stage),
        train_seconds=train,
        eval_seconds=evaluate,
        overhead_seconds=files + other,
        checkpoint_seconds=files,
        trained_tokens=100,
    )


def entries(*timed: tuple[float, Event]) -> list[Entry]:
    time = "2026-01-01T00:00:00+00:00"
    return [Entry(seq, time, event, clock) for seq, (clock, event) in enumerate(timed)]


def profile(run: Sequence[Entry]) -> dict[str, Any]:
    return profile_of(History(entry.event for entry in run), run)


BORN = GenerationStarted(0, tuple(make_genome(name) for name in "abc"))

TWO_WORKERS = entries(
    (100.0, started(2)),
    (100.0, ready(0, 3.0)),
    (100.0, BORN),
    (103.0, ready(1, 2.0)),  # 100 to 103: its process starts and loads
    (110.0, StageCompleted(0, trained("a", (7.0, 2.0, 0.5, 0.5)))),  # 100 to 110
    (111.0, StageCompleted(0, trained("b", (6.0, 1.0, 0.75, 0.25)))),  # 103 to 111
    (115.0, StageCompleted(0, trained("c", (4.0, 1.0, 0.0, 0.0)))),  # 110 to 115
    (116.0, StageDecided(0, "S0", ())),
    (118.0, FrontMeasured(Measurement("a", {}, {}, seconds=2.0))),
    (119.0, TrainedBeside(trained(BASELINE, (3.0, 0.0, 0.0, 0.0)))),  # 116 to 119
    (119.5, StageDecided(0, "S0", ())),
)


def test_every_second_of_every_worker_is_told_of_once() -> None:
    told = profile(TWO_WORKERS)
    assert told["seconds"] == {
        "train": 20.0,
        "evaluate": 4.0,
        "checkpoint": 1.25,
        "other": 0.75,
        "derive": 0.0,
        "measure": 2.0,
        "failed": 0.0,
        "load": 7.0,
        "wait": 4.0 + 4.0 + 1.0,  # for the first worker; for `c`; for the baseline
        "driver": 2 * 1.0 + 2 * 0.5,  # from `c` to what is measured, and at the end
        "lost": 0.0,
    }
    assert told["waiting_for"] == {"start": 4.0, "stage": 4.0, "derivation": 0.0, "end": 1.0}
    use = machine_use(TWO_WORKERS)
    assert told["worker_seconds"] == use.worker_seconds == 2 * use.wall_seconds == 47.0
    assert [sum(worker.values()) for worker in told["workers"]] == [23.5, 23.5]
    assert [row["stage"] for row in told["stages"]] == ["S0", "beside the search"]
    assert told["stages"][0]["train"] == 17.0


def test_what_a_killed_process_did_last_is_lost_and_the_next_one_starts_anew() -> None:
    run = entries(
        (10.0, started(2)),
        (10.0, ready(0, 1.0)),
        (10.0, BORN),
        (13.0, AttemptFailed("a", "S0", 3.0)),
        (500.0, RunResumed(startup_seconds=2.0, workers=1, lost_seconds=1.5)),
        (500.0, ready(0, 1.0)),
        (506.0, StageCompleted(0, trained("a", (4.0, 1.0, 1.0, 0.0)))),
    )
    told = profile(run)
    assert told["seconds"]["lost"] == 3.0
    assert told["seconds"]["failed"] == 3.0
    assert told["seconds"]["load"] == 4.0 + 2.0
    assert told["waiting_for"]["start"] == 7.0  # the second worker never came
    assert told["worker_seconds"] == machine_use(run).worker_seconds == 2 * 8.5 + 8.0


def test_a_job_that_counts_more_than_there_was_is_cut_to_what_there_was() -> None:
    run = entries(
        (0.0, started(1, startup=1.0)),
        (0.0, ready(0, 1.0)),
        (0.0, BORN),
        # Paused before, and its seconds count those of the earlier attempt.
        (2.0, StageCompleted(0, trained("a", (8.0, 2.0, 0.0, 0.0)))),
        (3.0, StageCompleted(0, trained("b", (1.0, 1.0, 0.0, 0.0)))),
    )
    told = profile(run)
    assert told["worker_seconds"] == 4.0
    assert told["seconds"]["train"] == pytest.approx(0.8 * 2.0 + 0.5)
    assert told["seconds"]["driver"] == 0.0


def test_a_worker_that_took_anothers_place_loads_between_two_jobs() -> None:
    run = entries(
        (0.0, started(1, startup=1.0)),
        (0.0, ready(0, 1.0)),
        (0.0, BORN),
        (2.0, AttemptFailed("a", "S0", 2.0)),
        (6.0, ready(1, 3.0)),
        (8.0, StageCompleted(0, trained("a", (2.0, 0.0, 0.0, 0.0)))),
    )
    told = profile(run)
    assert told["seconds"]["load"] == 1.0 + 3.0
    assert told["seconds"]["driver"] == 1.0  # which waits for the process to come up


def test_a_worker_that_starts_beside_the_first_loads_meanwhile() -> None:
    run = entries((0.0, started(2)), (0.0, ready(0, 3.0)), (1.0, ready(1, 2.0, 4.5)))
    told = profile(run)
    assert told["seconds"]["load"] == 4.0 + 4.5
    assert told["waiting_for"]["start"] == 0.5
    assert told["worker_seconds"] == 10.0


def test_a_simulation_is_all_the_drivers() -> None:
    run = entries(
        (0.0, started(1, device="none", startup=0.5)),
        (0.0, ready(0, 0.1)),
        (0.0, BORN),
        (1.5, StageCompleted(0, trained("a", (700.0, 2.0, 0.0, 0.0)))),
    )
    told = profile(run)
    assert told["seconds"]["driver"] == 1.5
    assert told["worker_seconds"] == 2.0


@pytest.mark.parametrize("kind", ["simulated", "trained"])
def test_runs_of_earlier_versions_are_told_of_to_the_last_second(kind: str) -> None:
    run = Ledger.read(GOLDEN / kind / "ledger.jsonl")
    told = profile(run)
    assert told["worker_seconds"] == pytest.approx(machine_use(run).worker_seconds, abs=0.01)
    if kind == "trained":
        assert told["seconds"]["train"] > 0
        assert told["seconds"]["checkpoint"] == 0.0  # it is in `other`


def test_operations_of_a_step_are_counted_from_parameters_and_tokens() -> None:
    # A token and a frozen weight: 2 forward, 2 backward; a trained one: 2 more.
    frozen = 8 * 8 + 8 * 16 + 8 * 10
    assert step_flops(FOOTPRINT, 64, 100) == 100 * (4 * frozen + 6 * 64)
    assert profile(TWO_WORKERS)["trained_flops"] == 3 * 100 * (4 * frozen + 6 * 64)


def test_the_table_shows_the_shares_and_how_near_training_came() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100)
    possible = {"flops_per_second": 1e9, "precision": "fp32", "threads": 1}
    print_profile(profile(TWO_WORKERS), possible, console)
    shown = text.getvalue()
    assert "42.6%" in shown  # 20 of 47 seconds
    assert "sum" in shown
    assert "the others of a stage 4.0 s" in shown
    assert "of the 1.0 GFLOP/s" in shown
    print_profile(profile(TWO_WORKERS[:1]), None, console)  # before anything has happened
