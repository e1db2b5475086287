"""The command line: one module a command, one boundary at which errors become messages."""

from __future__ import annotations

import os
import sys

from rich.markup import escape

from coralx.cli.app import app
from coralx.cli.shared import error_console
from coralx.errors import CoralXError
from coralx.interruption import exiting


def main() -> None:
    """Run the command. A known error prints what is wrong and what to do, without a traceback."""
    try:
        with exiting():  # a search at work does better
            app()
    except CoralXError as error:
        console = error_console()
        console.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
        if error.hint:
            console.print(escape(error.hint), soft_wrap=True)
        if "--debug" in sys.argv:
            console.print_exception()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read the output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
