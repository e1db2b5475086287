"""What goes where: results to standard output; progress, warnings and errors to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from coralx.report.formatting import HarmlessConsole

MIN_WIDTH = 120
"""Columns of output that does not go to a terminal, so that tables stay readable in files."""


def output_console() -> HarmlessConsole:
    """Standard output, at least wide enough for tables where it is not a terminal."""
    return HarmlessConsole(width=None if sys.stdout.isatty() else MIN_WIDTH)


def error_console() -> HarmlessConsole:
    """Standard error, for progress and for what went wrong."""
    return HarmlessConsole(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """JSON on standard output, untouched by terminal width."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
