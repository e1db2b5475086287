"""Ctrl-C, and the signals that ask a process to end: obeyed where nothing is half done.

The first signal only sets a flag, which executors look at between two events. The second ends the
process at once, and so does the first if the flag is not obeyed in time: what is on disk can be
resumed after any end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from coralx.errors import Interrupted

GRACE_SECONDS = 4.5
"""From the first signal until the process ends at once."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""From the keyboard, from batch systems, from a terminal that is closed."""

_HIDE_CURSOR, _SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"
"""Escape sequences; the live table hides the cursor, and an end at once must show it again."""


class Interruption:
    """Whether the process was asked to end."""

    def __init__(self) -> None:
        self.is_wanted = False

    def raise_if_requested(self) -> None:
        """Raise KeyboardInterrupt if it was."""
        if self.is_wanted:
            raise KeyboardInterrupt


@contextmanager
def handling_signals(interruption: Interruption, last_words: Callable[[], str]) -> Iterator[None]:
    """Within the block, signals set `interruption`. `last_words` gives the text that is printed if
    the process ends at once."""
    watchdog = threading.Timer(GRACE_SECONDS, _end_at_once, [last_words])
    watchdog.daemon = True

    def receive(*_: object) -> None:
        if interruption.is_wanted:
            _end_at_once(last_words)
        # Nothing is printed here: the main thread may be in the middle of a line.
        interruption.is_wanted = True
        watchdog.start()

    try:
        with _handled(receive):
            yield
    finally:
        watchdog.cancel()


@contextmanager
def exiting() -> Iterator[None]:
    """Within the block, signals end the process at once, with the exit code of an interruption."""
    with _handled(lambda *_: _end_at_once(lambda: "interrupted")):
        yield


@contextmanager
def _handled(handler: Callable[..., None]) -> Iterator[None]:
    """Have `handler` called for each of the signals, but for those that are ignored (by nohup, for
    example). Python handles signals in the main thread alone; in others nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    ours = _in_this_process(handler)
    before = {number: signal.signal(number, ours) for number in handled}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _in_this_process(handler: Callable[..., None]) -> Callable[..., None]:
    """The handler for this process alone: a process forked from it, such as those of a pool that a
    metric starts, keeps the signal's default action."""
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            handler(number, frame)
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return handle


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Within the block, processes are started that never see these signals: they often go to a
    whole group, and it is the driver that ends its workers. It receives its own when the block
    ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def cursor_shown_while_suspended() -> Iterator[None]:
    """Within the block, Ctrl-Z shows the cursor before the process stops, and hides it again when
    it goes on. Elsewhere than in the main thread nothing changes."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        yield
        return

    def suspend(*_: object) -> None:
        _tell_terminal(_SHOW_CURSOR)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # stops here
        signal.signal(signal.SIGTSTP, handler)
        _tell_terminal(_HIDE_CURSOR)

    handler = _in_this_process(suspend)
    signal.signal(signal.SIGTSTP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def _end_at_once(last_words: Callable[[], str]) -> None:
    """Leave without unwinding; workers end when their pipes close."""
    _tell_terminal(_SHOW_CURSOR)
    with suppress(OSError):  # standard error may be closed
        os.write(2, f"\n{last_words()}\n".encode())
    os._exit(Interrupted.exit_code)


def _tell_terminal(sequence: bytes) -> None:
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, sequence)
