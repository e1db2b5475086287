"""The command among shells, pipes and terminals: printing never fails, and errors are told."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coralx.api import runs as api
from coralx.api.graceful_exit import interruptible
from coralx.cli.boundary import show_error
from coralx.cli.commands import COMMANDS
from coralx.cli.streams import READABLE, Outlet, unfailing_streams
from coralx.errors import RUN, SetupError, UsageError, WorkerError
from coralx.execution.messages import Failed
from coralx.execution.process import reported
from coralx.storage.layout import RunLayout
from coralx.system.os_errors import as_setup_error
from tests.support.command import Said
from tests.support.factories import simulated_config

CONFIG = {
    "data": {"steps_per_epoch": 100},
    "evolution": {"population_size": 4, "generations": 2},
    "runtime": {"backend": "simulated"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and a run."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "c.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        api.evolve(simulated_config(), "done")
    finally:
        os.chdir(before)
    return folder


def coralx(*arguments: str, shell: str = "", **options: Any) -> Any:
    """The command in a process of its own, behind a `shell` line with "$@" for it if given."""
    line = [sys.executable, "-m", "coralx", *arguments]
    options = {"text": True, "check": False, "timeout": 120, **options}
    if shell:
        line = ["bash", "-c", shell, "bash", *line]
    done = subprocess.run(line, stderr=subprocess.PIPE, **options)
    assert not re.search("Traceback|Exception ignored", str(done.stderr)), done.stderr
    return done


# -- readers that go away, disks that are full, streams that are closed --------------------------


def test_a_reader_that_goes_away_does_not_end_a_run(place: Path) -> None:
    shell = '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}'
    arguments = ("evolve", "c.yaml", "--name", "headed")
    assert coralx(*arguments, shell=shell, cwd=place).returncode == 0
    report = json.loads((place / "runs" / "headed" / "report.json").read_text(encoding="utf-8"))
    assert report["completed"]


@pytest.mark.parametrize(
    "arguments", ["report done --json", "doctor done", "simulate c.yaml", "-h"]
)
def test_no_command_minds_that_nobody_reads(place: Path, arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = coralx(*arguments.split(), cwd=place, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_standard_output_is_told_and_ends_no_run(place: Path) -> None:
    with open("/dev/full", "w") as full:
        done = coralx("evolve", "c.yaml", "--name", "full", "--quiet", cwd=place, stdout=full)
    assert done.returncode == 4
    assert "standard output cannot be written (No space left on device)" in done.stderr
    assert (place / "runs" / "full" / "report.json").is_file()


def test_closed_streams_are_as_good_as_any(place: Path) -> None:
    shell = 'exec "$@" <&- >&- 2>&-'
    done = coralx("evolve", "c.yaml", "--name", "closed", shell=shell, cwd=place)
    assert done.returncode == 0
    ledger = (place / "runs" / "closed" / "ledger.jsonl").read_text(encoding="utf-8")
    assert all(json.loads(line) for line in ledger.splitlines())  # and nothing else got into it


def test_a_stream_that_does_not_wait_gets_all_of_it() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got = bytearray()

    def read() -> None:
        while chunk := os.read(reader, 1 << 16):
            got.extend(chunk)

    thread = threading.Thread(target=read)
    outlet = Outlet(writer, "w")
    stream = io.BufferedWriter(outlet)
    thread.start()
    stream.write(b"x" * 1_000_000)
    stream.close()
    thread.join(30)
    os.close(reader)
    assert (len(got), outlet.refusal) == (1_000_000, None)


# -- encodings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_whatever_the_encoding_a_report_can_be_read(place: Path, encoding: str) -> None:
    done = coralx(
        "report",
        "done",
        cwd=place,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        stdout=subprocess.PIPE,
        text=False,
    )
    lines = done.stdout.decode(encoding).splitlines()
    arrow = "↑" if encoding == "utf-8" else "^"
    assert any(f"auroc {arrow}" in line for line in lines)
    table = lines[next(n for n, line in enumerate(lines) if arrow in line) :][:5]
    assert len(set(map(len, table))) == 1  # stand-ins are as wide as what they stand for


def test_what_has_no_stand_in_is_written_as_python_does() -> None:
    with unfailing_streams():  # which makes the name known
        assert "é ↑ … 漢 🦀".encode("ascii", READABLE) == rb"\xe9 ^ ~ \u6f22 \U0001f980"
        assert "é ↑ 漢".encode("latin-1", READABLE) == b"\xe9 ^ \\u6f22"


# -- errors --------------------------------------------------------------------------------------


def test_a_working_folder_that_is_gone_is_told(place: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'rmdir "{gone}"; exec "$@"'
    done = coralx("evolve", str(place / "c.yaml"), shell=shell, cwd=gone)
    assert (done.returncode, "the working folder no longer exists" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "process or thread"),
        (RuntimeError("can't start new thread"), "no further process or thread"),
        (OSError(errno.EMFILE, "Too many open files", "/x/y"), "too many open files"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (MemoryError(), "no memory left"),
    ],
)
def test_what_the_system_refuses_is_said_in_words(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = as_setup_error(error)
    assert known is not None
    assert known.hint
    assert show_error(error) == 4
    said = capsys.readouterr()
    assert says in said.err
    assert (said.out, "coralx-error" in said.err, "Traceback" in said.err) == ("", False, False)


@pytest.mark.parametrize(
    "error",
    [KeyError("a\nb"), RecursionError("deep"), UnicodeDecodeError("utf-8", b"", 0, 1, "\udcff")],
)
def test_what_nobody_foresaw_is_a_line_and_a_file(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["coralx", "report", "a b"])
    assert show_error(error) == 4
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: unexpected {type(error).__name__}: ")
    (file,) = tmp_path.iterdir()
    assert f"Please report it to the project's issue tracker, with {file}" in second
    text = file.read_text(encoding="utf-8")
    assert "command: coralx report 'a b'\n" in text
    assert "Python 3." in text
    assert type(error).__name__ in text


def test_details_lie_in_the_run_folder_and_say_how_to_go_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = RunLayout(place / "runs" / "done")
    with pytest.raises(ZeroDivisionError) as caught, interruptible(layout):
        _ = 1 / 0
    assert show_error(caught.value) == 4
    said = capsys.readouterr().err
    assert f"with {layout.error}. Nothing is lost. To go on: coralx evolve --resume" in said
    assert "ZeroDivisionError" in layout.error.read_text(encoding="utf-8")
    layout.error.unlink()


def test_a_workers_traceback_is_no_hint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = RunLayout(place / "runs" / "done")
    failed = Failed("ValueError", "too odd", "", False, "Traceback: line 7 of its code")
    with pytest.raises(WorkerError) as caught, interruptible(layout):
        raise reported(failed)
    assert show_error(caught.value) == 4
    said = capsys.readouterr().err
    assert said.startswith(
        "error: the worker failed: ValueError: too odd\nNothing is lost. To go on"
    )
    assert f"Details: {layout.error}" in said
    assert "line 7" not in said
    assert "line 7 of its code" in layout.error.read_text(encoding="utf-8")
    layout.error.unlink()


def test_a_hint_ends_before_the_details_begin(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(WorkerError("it died", "Its last words: who", "a traceback"))
    assert "\nIts last words: who. Details: /" in capsys.readouterr().err


def test_a_process_that_may_not_be_started_leaves_a_way_on(place: Path) -> None:
    layout = RunLayout(place / "runs" / "done")
    with pytest.raises(SetupError) as caught, interruptible(layout):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    assert "runtime.workers" in caught.value.hint
    assert "To go on: coralx evolve --resume" in caught.value.hint
    assert getattr(caught.value, RUN) is layout


def test_ctrl_c_outside_a_run_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_error(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "error: interrupted\n"
    assert show_error(UsageError("a", "b")) == 2


# -- what goes where, names and paths ------------------------------------------------------------


def test_progress_goes_to_standard_error_and_results_to_standard_output(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Said]
) -> None:
    monkeypatch.chdir(place)
    said = command("evolve", "c.yaml", "--name", "apart", "--set", "hyperband_config.brackets=1")
    assert said.code == 0
    assert "generation 1 of 2: 4 genomes" in said.err
    assert "Pareto front" not in said.err
    assert said.out.startswith("apart: simulation, seed")
    assert "[  " not in said.out
    said = command("evolve", "c.yaml", "--name", "apart-quiet", "--quiet")
    assert "generation 1 of 2" not in said.err


@pytest.mark.parametrize("name", ["🦀", "a b", "\udcff", "é"])
def test_a_name_that_no_run_can_have_is_shown_as_it_was_given(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Said]
) -> None:
    monkeypatch.chdir(place)
    for arguments in (("evolve", "c.yaml", "--name"), ("stage", "c.yaml", "S0_sanity", "--run")):
        said = command(*arguments, name)
        assert said.code == 2
        assert "experiment.name: expected a name of letters (a-z, A-Z), digits" in said.err
        assert ("\\udcff" if name == "\udcff" else name) in said.err
        assert "pattern" not in said.err


def test_what_is_to_be_typed_is_in_quotes_where_the_shell_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunLayout(Path("runs") / "mine").shortest_name == "mine"
    odd = tmp_path / "it's a folder" / "mine"
    assert shlex.split(RunLayout(odd).shortest_name) == [str(odd)]
    assert RunLayout(odd).shortest_name != str(odd)


# -- the cost of help, and completion ------------------------------------------------------------


NAMES = [command.__name__ for command in COMMANDS]


def test_help_imports_nothing_that_carries_a_command_out() -> None:
    code = (
        "import sys, coralx.cli as c\n"
        f"for words in [], *([name] for name in {NAMES}):\n"
        "    sys.argv = ['coralx', *words, '-h']\n"
        "    try:\n        c.main()\n    except SystemExit as end:\n        assert not end.code\n"
        "    assert words or 'pydantic' not in sys.modules\n"  # typer's own, for options
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    heavy = {"numpy", "pandas", "moocore", "scipy", "sklearn", "psutil", "yaml"}
    assert not loaded & (heavy | {"torch", "transformers", "datasets", "safetensors"})
    carrying_out = {"coralx.config", "coralx.api.runs", *(f"coralx.cli.{name}" for name in NAMES)}
    assert not carrying_out & set(done.stderr.split())
    assert [done.stdout.count(f"Usage: coralx {name} ") for name in NAMES] == [1] * len(NAMES)
    listing = done.stdout.partition("Usage: coralx evolve")[0]
    assert all(name in listing for name in NAMES)
    assert "genome of its search space need" in done.stdout  # wrapped as a paragraph
    assert "\n   0  done, or ended by a budget with a front" in done.stdout  # a line for each code


def test_an_unknown_command_is_told_which_was_meant(command: Callable[..., Said]) -> None:
    said = command("evolv")
    assert (said.code, "Did you mean 'evolve'?" in said.err) == (2, True)


def test_the_shell_completes_commands_and_runs(place: Path) -> None:
    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        env = {**os.environ, **words, "_CORALX_COMPLETE": "complete_bash"}
        code = "import sys; sys.argv = ['coralx']; import coralx.cli; coralx.cli.main()"
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=place, capture_output=True, text=True
        )
        return done.stdout.split()

    assert completed("coralx ev") == ["evolve"]
    assert completed("coralx report do") == ["done"]


# -- the cursor ----------------------------------------------------------------------------------

SUSPENDED = """
import signal
from coralx.system.signals import cursor_shown_while_suspended
with cursor_shown_while_suspended():
    print("ready", flush=True)
    while True:
        signal.pause()
"""


def test_who_suspends_the_command_sees_the_cursor() -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SUSPENDED],
        stdout=subprocess.PIPE,
        stderr=follower,
        process_group=0,
    )

    def drawn() -> bytes:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if select.select([leader], [], [], 0.1)[0]:
                return os.read(leader, 100)
        return b""

    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(2):
            os.kill(process.pid, signal.SIGTSTP)
            assert drawn() == b"\x1b[?25h"
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            os.kill(process.pid, signal.SIGCONT)
            assert drawn() == b"\x1b[?25l"
    finally:
        process.kill()
        process.communicate()
        os.close(leader)
        os.close(follower)
