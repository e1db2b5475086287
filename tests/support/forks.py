"""Processes of CoralX as forks of this one, where torch is loaded already.

Each is a real process, a child of whoever starts it, with an environment, a working folder, streams
and pipes of its own: it can be killed, stopped and orphaned as any other. What it is spared is the
loading of libraries, which takes a worker five seconds. Some tests start the real command instead,
so that python's own start is tried, too.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coralx.execution import process, worker
from tests.support.command import coralx_here


def fork(
    run: Callable[[], None],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Call `run` in a fork that then ends with the exit code it asked for; 1 after an error."""

    def become() -> None:
        _shed_what_exec_would(pass_fds)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        os._exit(_exit_code(run))

    # What is executed is never reached; all that comes before, such as the streams, Popen does.
    return subprocess.Popen(
        [sys.executable],
        preexec_fn=become,
        restore_signals=False,  # python ignores SIGPIPE
        pass_fds=pass_fds,
        **options,
    )


def _shed_what_exec_would(pass_fds: Collection[int]) -> None:
    """Leave the parent's files and handlers of signals behind."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in map(int, os.listdir("/dev/fd")):
        # Not closed: an object that is left of the parent's could then close another file.
        if descriptor > 2 and descriptor not in (nothing, *pass_fds):
            os.dup2(nothing, descriptor, inheritable=False)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    gc.freeze()  # what is never looked at is never copied


def _exit_code(run: Callable[[], None]) -> int:
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def fork_coralx(
    folder: Path,
    *arguments: str,
    before: Callable[[], None] | None = None,
    before_worker: Callable[[], None] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """The command in `folder`, in a session of its own, its workers forks of it. It and they first
    call `before` and `before_worker`, which may patch what they like."""
    from coralx.cli import main

    load_libraries()

    def run() -> None:
        sys.argv = ["coralx", *arguments]
        process.subprocess = _forking(before_worker)  # type: ignore[attr-defined,assignment]
        if before is not None:
            before()
        main()

    return fork(run, cwd=folder, start_new_session=True, **options)


def coralx_with_forks(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the command in `folder` in this process, its workers forks of it; its output."""
    with forked_workers():
        return coralx_here(folder, *arguments, code=code)


@contextmanager
def forked_workers() -> Iterator[None]:
    """In the block, executors of this process fork their workers."""
    load_libraries()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "subprocess", _forking(None))
        yield


def load_libraries() -> None:
    """Import what every worker that trains does, for it to find."""
    import_module("coralx.training.peft")


def _forking(before_worker: Callable[[], None] | None) -> SimpleNamespace:
    """The module `subprocess`, but for how workers start."""

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        backend, orders, replies = command[-3:]

        def run() -> None:
            if before_worker is not None:
                before_worker()
            worker.main(backend, int(orders), int(replies))

        return fork(run, **options)

    return SimpleNamespace(**{**vars(subprocess), "Popen": start})
