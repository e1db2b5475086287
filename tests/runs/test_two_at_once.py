"""Two processes at one run, through the command line: the second, here this one, is refused; a dead
one is not in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coralx.records.events import RunResumed
from coralx.storage.ledger import Ledger
from tests.support.command import coralx_here

HELD = """
import time
from coralx.cli import main
from coralx.storage.ledger import Ledger
append = Ledger.append
def held(ledger, event):
    append(ledger, event)
    if len(ledger.entries) >= 4:
        time.sleep(600)
Ledger.append = held
main()
"""
"""The command, which stops for good after its fourth event."""

STUCK = """
import time
from coralx.api import session
from coralx.cli import main
session.hardware = lambda: time.sleep(600)
main()
"""
"""The command, stuck between making a run's folder and writing its first event."""

CONFIG = """
data: {steps_per_epoch: 100}
evolution: {population_size: 3, generations: 2}
runtime: {backend: simulated}
"""


def coralx(folder: Path, *arguments: str, code: int = 0) -> str:
    """What the command prints in this process, on one line."""
    return " ".join(coralx_here(folder, *arguments, code=code).split())


Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts the command by one of the scripts above; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []
    (tmp_path / "c.yaml").write_text(CONFIG)

    def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-c", script, *arguments]
        started.append(subprocess.Popen(command, cwd=tmp_path, **quiet))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def events_in(run: Path) -> int:
    ledger = run / "ledger.jsonl"
    return len(Ledger.read(ledger)) if ledger.exists() else 0


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("executor", ["in-process", "local"])
def test_a_second_process_is_refused_until_the_first_is_dead(
    executor: str, begin: Begin, tmp_path: Path
) -> None:
    """With worker processes only the driver is killed: they neither hold the lock nor live on."""
    run = tmp_path / "runs" / "x"
    choice = ("--set", f"runtime.executor={executor}", "--set", "runtime.workers=1")
    first = begin(HELD, "evolve", "c.yaml", "--name", "x", *choice)
    wait_for(lambda: events_in(run) >= 4)
    owner = f"process {first.pid} on {socket.gethostname()}"
    for arguments in (("--resume", "x"), ("c.yaml", "--resume", "x")):
        output = coralx(tmp_path, "evolve", *arguments, code=4)
        assert f"run 'x' is in use by {owner}" in output
    coralx(tmp_path, "report", "x")
    assert first.poll() is None  # nobody disturbed it

    kill(first)
    assert json.loads((run / "owner.json").read_text())["pid"] == first.pid  # left behind, stale
    assert (run / "run.lock").exists()
    coralx(tmp_path, "report", "x")
    coralx(tmp_path, "evolve", "--resume", "x", "--quiet")
    assert not (run / "owner.json").exists()
    resumed = [e for e in Ledger.read_events(run / "ledger.jsonl") if isinstance(e, RunResumed)]
    assert len(resumed) == 1


def test_the_name_of_a_run_that_is_being_made_is_refused_until_its_maker_is_dead(
    begin: Begin, tmp_path: Path
) -> None:
    first = begin(STUCK, "evolve", "c.yaml", "--name", "x")
    wait_for((tmp_path / "runs" / "x" / "config.yaml").exists)
    output = coralx(tmp_path, "evolve", "c.yaml", "--name", "x", "--quiet", code=2)
    owner = f"process {first.pid} on {socket.gethostname()}"
    assert f"a run named 'x' is being created by {owner}" in output
    assert first.poll() is None
    kill(first)
    coralx(tmp_path, "evolve", "c.yaml", "--name", "x", "--quiet")
    assert not (tmp_path / "runs" / "x-2").exists()
