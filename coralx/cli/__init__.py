"""The command line: one module a command, one boundary at which errors become messages."""

from __future__ import annotations

import os
import sys

from coralx.cli.app import app
from coralx.cli.boundary import show_error
from coralx.cli.streams import GONE, Outlet, unfailing_streams
from coralx.errors import SetupError
from coralx.system.os_errors import WAYS_OUT
from coralx.system.signals import exiting


def main() -> None:
    """Run the command and exit. An error prints what is wrong and what to do, no traceback."""
    with (
        unfailing_streams() as output,
        exiting(),
    ):  # while a search runs, its own handlers replace these
        code = _exit_code()
        sys.stdout.flush()
        if output is not None and code == 0:
            code = _unless_refused(output)
    sys.exit(code)


def _exit_code() -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # KeyboardInterrupt, too, is to end without a traceback
        return show_error(error)
    return 0


def _unless_refused(output: Outlet) -> int:
    """0, unless what was printed could not be written though somebody may be waiting for it."""
    # a reader that went away, as `| head` does, has read what it needs: that is no failure
    refusal = output.refusal
    if refusal is None or refusal.errno in GONE:
        return 0
    number = refusal.errno or 0
    return show_error(
        SetupError(
            f"standard output cannot be written ({os.strerror(number)})",
            f"{WAYS_OUT.get(number, 'Redirect it elsewhere.')} The files in the run folder are "
            "complete; coralx report prints the results again.",
        )
    )
