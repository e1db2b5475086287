"""Ends that nobody asked for: kill -9 at any moment, Ctrl-C, SIGTERM, workers that die or hang."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from coralx.backends.protocol import Beat
from coralx.execution import stopping
from coralx.records.events import Event, GenomeFailed, StageCompleted, StageDecided
from coralx.records.jobs import Job
from coralx.storage.history import History
from coralx.storage.layout import is_run
from coralx.storage.ledger import Ledger
from coralx.system import signals
from coralx.system.signals import SIGNALS, Interruption, exiting, handling_signals
from coralx.training import loop
from tests.support.forks import fork_coralx
from tests.support.paths import SUPPORT

KILL_POINTS = SUPPORT / "kill_points.py"
PATIENCE = 600
"""Seconds after which a test gives up; no test is about how long something takes."""


@pytest.mark.parametrize(
    ("points", "seed"), [(10, 1), pytest.param(200, 2, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_simulated_search_killed_at_any_operation_ends_like_one_left_alone(
    tmp_path: Path, points: int, seed: int
) -> None:
    """kill -9 right before random operations on files, again and again, also during resumes:
    equal decisions, equal results, equal files; and nothing trained twice but what was under way.
    """
    done = subprocess.run(
        [sys.executable, str(KILL_POINTS), str(points), str(seed)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= points
    assert found["operations"] > 400
    assert found["trainings"] > 40
    assert found["differing"] == []
    assert found["trained_twice_beyond_one_a_kill"] == 0


# -- with real gradients and worker processes ------------------------------------------------------


ONE_WORKER = ("--set", "runtime.workers=1")
"""A start that is half as long; two workers decide the same."""


def in_no_hurry() -> None:
    """Have this driver wait as long as it takes for workers to leave off."""
    signals.GRACE_SECONDS = stopping.PAUSE_SECONDS = 600


def slow_at_last(mark: Path) -> None:
    """Have this worker linger in every step of the last stage, and leave a mark there."""
    train = loop.Trainer.run

    def slowly(self: Any, job: Job, trace: Any, report: Any, beat: Beat, *rest: Any) -> None:
        def slow_beat() -> None:
            if job.stage == "S3_finisher" and trace.losses:
                mark.touch()
                time.sleep(0.5)
            beat()

        train(self, job, trace, report, slow_beat, *rest)

    loop.Trainer.run = slowly  # type: ignore[assignment,method-assign]


class Started:
    """`coralx` in a process group of its own, and what it has printed so far: a fork of this
    process, or `afresh`, as a user starts it."""

    def __init__(
        self, folder: Path, *arguments: str, afresh: bool = False, **patches: Callable[[], None]
    ) -> None:
        self.output = folder / "output.txt"
        with self.output.open("wb") as file:
            streams: Any = {"stdout": file, "stderr": subprocess.STDOUT}
            if afresh:
                command = [sys.executable, "-m", "coralx", *arguments]
                self.process = subprocess.Popen(
                    command, cwd=folder, start_new_session=True, **streams
                )
            else:
                self.process = fork_coralx(folder, *arguments, **patches, **streams)

    def said(self) -> str:
        return self.output.read_text()

    def until(self, pattern: str) -> None:
        self._until(lambda: re.search(pattern, self.said()) is not None)

    def until_there_is(self, path: Path) -> None:
        self._until(path.exists)

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def workers(self) -> list[psutil.Process]:
        """It starts no other processes."""
        return psutil.Process(self.process.pid).children()

    def ended(self, seconds: float = PATIENCE) -> int:
        return self.process.wait(seconds)


def are_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    return not alive


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_search: dict[str, Any]) -> Path:
    """A folder with tiny.yaml, whose stages take long enough to be hit, and its run runs/whole."""
    folder = tmp_path_factory.mktemp("kills")
    config = copy.deepcopy(tiny_search)
    config["evolution"]["population_size"] = 3
    config["runtime"] |= {"checkpoint_minutes": 0.005, "keep_checkpoints": "all"}
    stages = config["hyperband_config"]["training_stages"]
    for stage in stages:
        stage["epoch_budget"] = 4
    config["hyperband_config"]["training_stages"] = [stages[1], {**stages[3], "epoch_budget": 6}]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    started = Started(folder, "evolve", "tiny.yaml", "--name", "whole", *ONE_WORKER)
    assert started.ended() == 0, started.said()
    return folder


def comparable(run: Path) -> dict[str, Any]:
    """Decisions, figures and checkpoint bytes of a run."""
    decisions, figures = [], {}
    for event in Ledger(run / "ledger.jsonl"):
        if isinstance(event, StageDecided):
            decisions.append(event)
        if isinstance(event, StageCompleted):
            result = event.result
            assert (result.genome, result.stage) not in figures  # none was trained again
            figures[result.genome, result.stage] = (result.metrics, result.loss_trend, result.curve)
    front = json.loads((run / "report.json").read_text())["front"]
    kept = {
        str(path.relative_to(run)): path.read_bytes()
        for folder in ("best", "checkpoints")
        for path in (run / folder).rglob("*.safetensors")
    }
    return {"decisions": decisions, "figures": figures, "front": front, "files": kept}


def victims(started: Started, whom: str) -> None:
    """kill -9 of the driver, of a worker, or of the whole process group."""
    workers = started.workers()
    if whom == "group":
        os.killpg(started.process.pid, signal.SIGKILL)
    elif whom == "driver":
        started.process.kill()
    elif workers:
        workers[-1].kill()
        return
    started.ended()
    assert are_gone(workers)  # no orphan, and none keeps the GPU


@pytest.mark.parametrize(
    ("kills", "seed", "afresh"),
    [(3, 5, False), *(pytest.param(6, s, True, marks=pytest.mark.slow) for s in range(4))],
)
def test_a_real_search_killed_again_and_again_ends_like_one_left_alone(
    place: Path, kills: int, seed: int, afresh: bool
) -> None:
    """Each time at a random moment, the start and the resuming themselves included."""
    rng = random.Random(seed)
    hits = 0
    name = f"killed-{seed}-{kills}"
    run = place / "runs" / name
    order = ["driver", "worker", "group"] * kills
    for whom in order[:kills]:
        begun = is_run(run)
        given = ["--resume", name] if begun else ["tiny.yaml", "--name", name]
        started = Started(place, "evolve", *given, *ONE_WORKER, afresh=afresh)
        if rng.random() < 0.7:
            started.until("generation 1 of 2|resumed at")
        time.sleep(rng.uniform(0.0, 2.5))
        if started.process.poll() is None:
            victims(started, whom)
            hits += 1
        if whom == "worker":
            time.sleep(rng.uniform(0.0, 3.0))
            started.process.kill()
            started.ended()
    arguments = ["--resume", name] if is_run(run) else ["tiny.yaml", "--name", name]
    last = Started(place, "evolve", *arguments, *ONE_WORKER, afresh=afresh)
    assert last.ended() == 0, last.said()
    assert hits > kills // 2
    assert comparable(run) == comparable(place / "runs" / "whole")
    assert not (run / "partial").exists()


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow),
     pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_signal_leaves_a_run_that_goes_on_where_training_stood(
    place: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Sent to the whole group, as batch systems and terminals do."""
    name, mark = f"asked-{number.name}", tmp_path / "mark"
    seldom = ("--set", "runtime.checkpoint_minutes=60")  # what is kept is kept for the signal
    started = Started(
        place, "evolve", "tiny.yaml", "--name", name, *seldom, *ONE_WORKER,
        before=in_no_hurry, before_worker=lambda: slow_at_last(mark),
    )  # fmt: skip
    started.until_there_is(mark)
    workers = started.workers()
    os.killpg(started.process.pid, number)
    assert started.ended() == 130, started.said()
    run = place / "runs" / name
    (state,) = (run / "partial").glob("*/S3_finisher/trainer_state.json")
    assert json.loads(state.read_text())["trace"]["losses"]
    assert f"coralx evolve --resume {name}" in started.said()
    assert "Traceback" not in started.said()
    assert are_gone(workers)
    last = Started(place, "evolve", "--resume", name, *ONE_WORKER)
    assert last.ended() == 0, last.said()
    assert comparable(run) == comparable(place / "runs" / "whole")


def test_a_second_signal_ends_at_once(place: Path) -> None:
    """A driver that would wait for its worker for ever does not."""
    started = Started(
        place, "evolve", "tiny.yaml", "--name", "at-once", *ONE_WORKER, before=in_no_hurry
    )
    started.until("generation 1 of 2")
    workers = started.workers()
    workers[0].suspend()  # so that it cannot leave off
    deadline = time.monotonic() + PATIENCE / 2
    while started.process.poll() is None:  # two signals at the same moment count as one
        assert time.monotonic() < deadline
        started.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert started.ended() == 130
    assert "coralx evolve --resume at-once" in started.said()
    assert are_gone(workers)


def test_a_worker_that_does_not_leave_off_is_not_waited_for(place: Path) -> None:
    started = Started(place, "evolve", "tiny.yaml", "--name", "stuck", *ONE_WORKER)
    started.until("generation 1 of 2")
    workers = started.workers()
    for worker in workers:
        worker.suspend()
    started.process.send_signal(signal.SIGTERM)
    assert started.ended() == 130
    assert "coralx evolve --resume stuck" in started.said()
    assert are_gone(workers)


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As under nohup, which has runs outlive their terminal."""
    interruption, before = Interruption(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handling_signals(interruption, lambda: "never said"):
            os.kill(os.getpid(), signal.SIGHUP)
            interruption.raise_if_requested()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not interruption.is_wanted


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_a_forked_process_is_its_own(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in a pool that a metric starts, and that ends its processes by SIGTERM."""
    interruption = Interruption()
    with exiting(), handling_signals(interruption, lambda: "never said"):
        if (child := os.fork()) == 0:
            os.kill(os.getpid(), number)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
    assert not interruption.is_wanted
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("end", ["hangs", pytest.param("segfault", marks=pytest.mark.slow)])
def test_a_worker_that_hangs_or_dies_is_replaced_and_nothing_else_changes(
    place: Path, end: str
) -> None:
    started = Started(
        place, "evolve", "tiny.yaml", "--name", end, *ONE_WORKER,
        "--set", "runtime.heartbeat_minutes=0.1",
    )  # fmt: skip
    started.until("generation 1 of 2")
    time.sleep(0.3)
    (worker, *_) = started.workers()
    if end == "hangs":
        worker.suspend()
    else:
        worker.send_signal(signal.SIGSEGV)
    assert started.ended() == 0, started.said()
    why = {"hangs": "gave no sign of life for 0.1 min", "segfault": "killed by SIGSEGV"}[end]
    assert f"its worker {'was ' if end == 'segfault' else ''}{why}" in started.said()
    assert "trying again on a new worker" in started.said()
    assert are_gone([worker])
    assert comparable(place / "runs" / end) == comparable(place / "runs" / "whole")


def dying() -> None:
    """Have this worker die in training."""
    loop.Trainer.run = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_search_in_which_every_genome_fails_ends_with_a_table_of_reasons(
    place: Path,
) -> None:
    started = Started(
        place, "evolve", "tiny.yaml", "--name", "all-fail", "--set", "evolution.generations=1",
        "--set", "evolution.population_size=2", before_worker=dying,
    )  # fmt: skip
    assert started.ended() == 3, started.said()
    said = started.said()
    assert "Traceback" not in said
    assert "killed by SIGKILL (as the kernel does when memory runs out)" in said
    events: list[Event] = list(Ledger(place / "runs" / "all-fail" / "ledger.jsonl"))
    failures = [event for event in events if isinstance(event, GenomeFailed)]
    assert len(failures) == 2
    for failure in failures:
        assert said.count(f"{failure.genome}: its worker was killed") == 2  # tried again twice
        assert re.search(rf"│ {failure.genome} +│ S1_shakeout", said)
    assert not History(events).results
