"""What a function of the user's may change for the whole process is put back when it returns.

The environment and `sys.path` stay as it left them: what a module sets while it loads, its
functions may need later.
"""

from __future__ import annotations

import gc
import locale
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import partial
from typing import Any

import numpy as np

from coralx.training import torch_state
from coralx.training.torch_state import Setting

NO_TIMER = (0.0, 0.0)


def _ignore_call(name: str | None) -> None:
    """Outside of a worker nobody asks which function runs."""


on_call: Callable[[str | None], None] = _ignore_call
"""Called with the name of a function that is about to run, and with None when it has returned: a
worker passes this on to its driver, which can then name the function if it never returns."""


@contextmanager
def state_restored(name: str) -> Iterator[None]:
    """In the block, the function of that name runs: with an empty standard input, and what it
    prints goes to standard error. A process that it forks ends where the block does."""
    process = os.getpid()
    states = [(put_back, read()) for read, put_back in _states()]
    settings = [(read, put_back, read()) for read, put_back in _settings()]
    on_call(name)
    try:
        with ExitStack() as stack:
            if (torch := sys.modules.get("torch")) is not None:
                stack.enter_context(torch_state.contexts_left(torch))
            if sys.stderr is not None:
                stack.enter_context(redirect_stdout(sys.stderr))
            stack.enter_context(_no_input())
            yield
    finally:
        if os.getpid() != process:  # a fork, which must not become a second worker
            os._exit(0)
        for put_back, value in states:
            put_back(value)
        for read, put_back, before in settings:
            if read() != before:
                put_back(before)
        on_call(None)


@contextmanager
def _no_input() -> Iterator[None]:
    """In the block, standard input is empty; but at a terminal it is left alone, for debuggers."""
    try:
        before = None if os.isatty(0) else os.dup(0)
    except OSError:  # it is closed
        before = None
    if before is None:
        yield
        return
    nothing = open(os.devnull, encoding="ascii")  # noqa: SIM115  closing it may fail, see below
    os.dup2(nothing.fileno(), 0)
    stdin, sys.stdin = sys.stdin, nothing
    try:
        yield
    finally:
        sys.stdin = stdin
        try:
            nothing.close()
            os.dup2(before, 0)
            os.close(before)
        except OSError:
            raise OSError("it closed files of this process that it had not opened") from None


# -- what is put back ------------------------------------------------------------------------------


def _states() -> Iterator[Setting]:
    """What is put back in any case: it cannot be compared, or putting it back costs nothing."""
    yield random.getstate, random.setstate
    yield np.random.get_state, np.random.set_state
    if (torch := sys.modules.get("torch")) is not None:
        yield torch.get_rng_state, torch.set_rng_state
        if torch.cuda.is_initialized():
            yield torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all


def _settings() -> Iterator[Setting]:
    """What is put back where it changed."""
    yield _folder, _change_folder
    yield lambda: (sys.stdin, sys.stdout, sys.stderr), _set_streams
    yield lambda: warnings.filters[:], _set_filters
    yield np.geterr, lambda modes: np.seterr(**modes)
    yield partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)
    yield sys.getrecursionlimit, sys.setrecursionlimit
    yield gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()
    if threading.current_thread() is threading.main_thread():
        yield _timer, _set_timer
        yield _handlers, _set_handlers
    if (torch := sys.modules.get("torch")) is not None:
        yield from torch_state.settings(torch)


def _folder() -> str | None:
    """The working folder; None where it was deleted."""
    with suppress(OSError):
        return os.getcwd()
    return None


def _change_folder(folder: str | None) -> None:
    if folder is not None:
        with suppress(OSError):
            os.chdir(folder)


def _set_streams(streams: tuple[Any, Any, Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _timer() -> bool:
    """Whether an alarm is set."""
    return signal.getitimer(signal.ITIMER_REAL) != NO_TIMER


def _set_timer(was_set: bool) -> None:
    if not was_set:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _handlers() -> dict[int, Any]:
    """What is done at each signal; None where that was not set from Python."""
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)
