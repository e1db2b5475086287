"""What several commands use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

MIN_WIDTH = 120
"""Columns of output that does not go to a terminal, so that tables stay readable in files."""

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the config, by its dotted path. May be repeated.",
    ),
]


def output_console() -> Console:
    """Standard output, at least wide enough for tables where it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else MIN_WIDTH)


def error_console() -> Console:
    """Standard error, for what went wrong."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """JSON on standard output, untouched by terminal width."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
