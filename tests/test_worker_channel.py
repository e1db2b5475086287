"""What a worker imports, what it talks on, and how its errors end: without any model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import simulated_config

from coralx.backends.simulated import SimulatedBackend
from coralx.errors import ConfigError, WorkerError
from coralx.execution import inprocess
from coralx.execution.inprocess import InProcessExecutor
from coralx.execution.local import LocalExecutor
from coralx.execution.messages import Calling, Hello, Reply
from coralx.execution.process import WorkerProcess, replies
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job, JobFailed

ROOT = str(Path(__file__).parents[1])
STRAY = "raise SystemExit('imported from the working folder')\n"

Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers that run some code before their own."""
    started = []

    def worker(code: str = "", number: int = 0) -> WorkerProcess:
        folder = tmp_path / f"site{number}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            "import os, sys\n"
            f"if 'coralx.execution.worker' in sys.orig_argv:\n    {code or 'pass'}\n"
        )
        path = os.pathsep.join([str(folder), ROOT])
        started.append(WorkerProcess(number, "simulated", 1, number, {"PYTHONPATH": path}))
        return started[-1]

    yield worker
    for process in started:
        process.kill()


def first_word(worker: WorkerProcess) -> Reply | None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for _, reply in replies([worker], 1.0):
            return reply
    raise AssertionError("the worker says nothing")


def test_nothing_is_imported_from_the_working_folder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "coralx").mkdir()
    for name in ("coralx/__init__", "pydantic", "numpy", "psutil", "yaml", "queue", "runpy"):
        (tmp_path / f"{name}.py").write_text(STRAY)
    monkeypatch.chdir(tmp_path)
    assert isinstance(first_word(start()), Hello)


def test_the_command_as_a_module_imports_nothing_from_the_working_folder(tmp_path: Path) -> None:
    for name in ("yaml", "rich", "typer", "pydantic", "numpy"):
        (tmp_path / f"{name}.py").write_text(STRAY)
    done = subprocess.run(
        [sys.executable, "-m", "coralx", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("coralx ")


def test_what_others_print_is_in_the_log_and_not_in_the_channel(start: Start) -> None:
    code = (
        "print('from Python', flush=True); os.write(1, b'from C'); os.system('echo from a child')"
    )
    worker = start(code)
    assert isinstance(first_word(worker), Hello)
    for said in ("from Python", "from C", "from a child"):
        assert said in worker.end_of_log()


def test_a_worker_has_no_input(start: Start) -> None:
    worker = start("print('read', repr(sys.stdin.read()), flush=True); os.system('cat')")
    assert isinstance(first_word(worker), Hello)
    assert "read ''" in worker.end_of_log()


def test_what_is_no_reply_is_passed_over(start: Start) -> None:
    worker = start("os.write(int(sys.orig_argv[-1]), b'hello\\n{}\\n\\xff\\n')")
    assert isinstance(first_word(worker), Hello)
    assert worker.end_of_log().count("passed over what is no reply") == 3


def test_a_worker_that_ends_is_noticed_though_its_child_lives(start: Start, tmp_path: Path) -> None:
    note = tmp_path / "child"
    forking = (
        f"child = os.fork()\n"
        f"if child == 0: __import__('time').sleep(120)\n"
        f"open({str(note)!r}, 'w').write(str(child))\n"
        f"os._exit(3)\n"
    )
    worker = start(
        "from coralx.backends.simulated import SimulatedBackend as Backend; "
        f"Backend.devices = lambda _: exec({forking!r}, {{'os': os}})"
    )
    began = time.monotonic()
    assert first_word(worker) is None
    assert time.monotonic() - began < 60
    assert worker.exit_reason() == "ended with exit code 3"
    os.kill(int(note.read_text()), signal.SIGKILL)


def test_a_function_that_ends_its_worker_is_named(start: Start) -> None:
    code = '{"function":"mine:f","kind":"calling"}\\n'
    worker = start(f"os.write(int(sys.orig_argv[-1]), b'{code}'); os.kill(os.getpid(), 11)")
    assert first_word(worker) == Calling("mine:f")
    assert first_word(worker) is None
    assert worker.exit_reason() == "was killed by SIGSEGV while it ran mine:f"
    assert worker.last_words()[0].startswith("Mend mine:f: most likely it crashes the process.")


@pytest.mark.parametrize(
    ("end", "does"),
    [
        ("os._exit(3)", "ends the process, or closes files that it did not open"),
        ("os.closerange(3, 99); os._exit(1)", "ends the process, or closes files that it did not"),
        ("os.kill(os.getpid(), 9)", "takes more memory than there is"),
    ],
)
def test_what_a_function_is_to_blame_for(start: Start, end: str, does: str) -> None:
    code = '{"function":"mine:f","kind":"calling"}\\n'
    worker = start(f"os.write(int(sys.orig_argv[-1]), b'{code}'); {end}")
    while first_word(worker) is not None:
        pass
    assert " while it ran mine:f" in worker.exit_reason()
    assert worker.last_words()[0].startswith(f"Mend mine:f: most likely it {does}")


def test_where_a_worker_crashed_is_its_last_word(start: Start) -> None:
    worker = start("import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(0)")
    assert first_word(worker) is None
    hint, details = worker.last_words()
    assert re.fullmatch(r'It crashed in: File ".*ctypes.*", line \d+ in string_at', hint)
    assert "sitecustomize.py" in details


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_workers_hold_no_pipe_of_each_other(start: Start) -> None:
    def pipes(pid: int | str) -> set[str]:
        links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
        return {link for link in links if link.startswith("pipe:")}

    workers = start(), start(number=1)
    for worker in workers:
        assert isinstance(first_word(worker), Hello)
    one, other = (pipes(worker.pid) for worker in workers)
    assert len(one) == len(other) == 2
    assert not one & other


# -- errors in jobs --------------------------------------------------------------------------------


class Broken(SimulatedBackend):
    """Meets an error in each job."""

    error: Exception = ValueError("no such step")

    def train(self, *_: Any, **__: Any) -> Any:
        raise self.error


def job(number: int) -> Job:
    return Job(Genome(f"g{number}", 0, Genes(rank=2)), "S0", 0, 1, Horizon(1, 0), 1.0, None)


BREAKING = (
    "from coralx.training import simulated; "
    "simulated.SimulatedBackend.train = lambda *_, **__: [][0]"
)


def test_an_error_that_a_second_worker_confirms_is_not_tried_on_a_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nif 'coralx.execution.worker' in sys.orig_argv:\n    {BREAKING}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), ROOT]))
    said: list[Any] = []
    executor = LocalExecutor("simulated")
    try:
        executor.start(simulated_config(runtime={"workers": 1}), None, said.append)
        outcomes = list(executor.run([job(0), job(1)]))
    finally:
        executor.close()
    reason = "IndexError: list index out of range"
    assert outcomes == [JobFailed("g0", "S0", reason), JobFailed("g1", "S0", reason)]
    assert [line for line in said if "trying again" in str(line)] == [
        f"g{number}: {reason}; trying again on a new worker" for number in range(2)
    ]
    assert executor._spawned == 3  # the second worker was not to blame


def broken(monkeypatch: pytest.MonkeyPatch, error: Exception) -> InProcessExecutor:
    backend = Broken()
    backend.error = error
    monkeypatch.setattr(inprocess, "create", lambda _: backend)
    return InProcessExecutor("simulated")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no such step"), "ValueError: no such step"),
        (MemoryError(), "MemoryError"),
        (WorkerError("lost"), "WorkerError: lost"),
    ],
)
def test_in_this_very_process_an_error_fails_the_genome_alone(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = broken(monkeypatch, error)
    executor.start(simulated_config(), None, lambda _: None)
    assert list(executor.run([job(0), job(1)])) == [
        JobFailed("g0", "S0", reason),
        JobFailed("g1", "S0", reason),
    ]


def test_in_this_very_process_known_errors_are_raised_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = ConfigError("config", ["model.base: bad"])
    executor = broken(monkeypatch, error)
    executor.start(simulated_config(), None, lambda _: None)
    with pytest.raises(ConfigError) as caught:
        list(executor.run([job(0)]))
    assert caught.value is error


def test_in_this_very_process_an_unknown_error_at_the_start_is_told_like_a_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor = broken(monkeypatch, ValueError())
    monkeypatch.setattr(Broken, "prepare", lambda *_: {}["base"])
    with pytest.raises(WorkerError) as caught:
        executor.start(simulated_config(), None, lambda _: None)
    assert caught.value.message == "the worker failed: KeyError: 'base'"
    assert "Traceback" in caught.value.details
    assert caught.value.hint == ""


def test_a_run_in_which_all_genomes_fail_alike_says_why(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inprocess, "create", lambda _: Broken())
    (tmp_path / "c.yaml").write_text(
        "data: {steps_per_epoch: 100}\nevolution: {population_size: 2, generations: 1}\n"
        "runtime: {backend: simulated}\n"
    )
    said = command("evolve", "c.yaml")
    assert said.code == 3
    assert "every genome failed, for the same reason: ValueError: no such step" in said.err
    assert "by stop rules" not in said.err
