"""The standard streams, such that printing cannot fail: a run is worth more than what it says.

Whoever reads may go away (`| head`), the disk that output goes to may be full, and a stream may be
closed from the start, or of an encoding that has no arrows. None of that ends a command.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

READABLE = "coralx.readable"
"""The name of the error handler for characters that a stream's encoding does not have."""

ASCII_SIGNS = {"↑": "^", "↓": "v", "·": "-", "…": "~"}
"""One character for one, so that tables stay aligned."""

GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)
"""What a write meets whose reader or terminal went away: nobody is left to read an error."""


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Signs of our own as ASCII ones that look like them, others as Python escapes them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = (ASCII_SIGNS.get(s) or s.encode("ascii", "backslashreplace").decode() for s in text)
    return "".join(shown), error.end


class Outlet(io.FileIO):
    """A descriptor to which writing never fails: after the first refusal, `refusal`, all is
    dropped."""

    refusal: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        size = memoryview(data).nbytes
        while self.refusal is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.refusal = error
                break
            if written is not None:
                return written
            self._await_room()
        return size

    def _await_room(self) -> None:
        """A terminal that another program has set to not wait may be full for a moment."""
        with suppress(OSError, ValueError):
            select.select([], [self], [])


@contextmanager
def unfailing_streams() -> Iterator[Outlet | None]:
    """Within the block, printing never raises. Yields what standard output goes through, None where
    it is no descriptor of the system's."""
    codecs.register_error(READABLE, _readable)
    _open_the_closed()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = before[0] or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    output, sys.stdout = _unfailing(before[1], 1)
    _, sys.stderr = _unfailing(before[2], 2)
    try:
        yield output
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _open_the_closed() -> None:
    """Have the null device stand where a standard stream is closed; else the next file that is
    opened would take its place, and what libraries print would go into it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _unfailing(stream: TextIO | None, descriptor: int) -> tuple[Outlet | None, TextIO]:
    if stream is not None:
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):  # a test's, say
            return None, stream
        stream.flush()
    outlet = Outlet(descriptor, "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=stream.encoding if stream else "utf-8",
        errors=READABLE,
        newline=None,
        line_buffering=outlet.isatty() or descriptor == 2,
    )
    return outlet, text
