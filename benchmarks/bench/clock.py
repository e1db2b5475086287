"""A contestant's process, timed: its seconds, its CPU seconds with all that it started, and how
busy the machine was otherwise."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.5
GRACE_SECONDS = 15.0
"""Between asking a contestant to end and ending it."""


@dataclass(frozen=True)
class Timed:
    """What a process took."""

    began: float
    """Seconds since the epoch."""
    seconds: float
    cpu_seconds: float
    others_seconds: float
    exit_code: int
    """Negative: ended by a signal."""


def never() -> bool:
    """Nothing is enough."""
    return False


def timed(
    command: Sequence[str],
    folder: Path,
    limit: float = math.inf,
    is_enough: Callable[[], bool] = never,
    log: str = "log",
) -> Timed:
    """Run a command in a folder, its output in the file `log` there, and end it after `limit`
    seconds, or as soon as it has done enough."""
    _adopt_orphans()
    folder.mkdir(parents=True, exist_ok=True)
    cpu, busy = _own_cpu(), _machine_busy()
    began, clock = time.time(), time.monotonic()
    with (folder / log).open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None and not is_enough():
                if time.monotonic() - clock > limit:
                    break
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
            seconds = time.monotonic() - clock
            busy = _machine_busy() - busy
            _interrupt(process)
        finally:
            _end_children()
            process.wait()
    cpu = _own_cpu() - cpu
    return Timed(began, seconds, cpu, max(0.0, busy - cpu), process.returncode)


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, as Ctrl-C does, and give it some time to."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def _adopt_orphans() -> None:
    """Have processes whose parents ended become children of this one, so that their CPU seconds
    count here, and none is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_children() -> None:
    """End whatever the contestant has left running."""
    for _ in range(10):
        children = psutil.Process().children(recursive=True)
        if not children:
            return
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=5)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _own_cpu() -> float:
    """CPU seconds of this process and of all children that have ended."""
    used = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        used += usage.ru_utime + usage.ru_stime
    return used


def _machine_busy() -> float:
    """CPU seconds that the machine has spent on anything, and that it was kept from."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times[:8]) - idle)
