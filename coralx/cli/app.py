"""The Typer application and its commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from coralx import __version__
from coralx.cli.commands import COMMANDS, evolve, simulate
from coralx.cli.several_runs import SeveralRuns

app = typer.Typer(
    name="coralx",
    help="Search LoRA adapters with NSGA-II, trained through stages of growing budget: YAML in, a "
    "Pareto front of adapters out.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"coralx {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Also show the tracebacks of errors.")
    ] = False,
) -> None:
    pass


def _help_of(command: Callable[..., None]) -> str:
    """A command's docstring, each paragraph on one line so that any terminal can wrap it; the list
    of exit codes keeps its lines."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    joined = [p if p.startswith("Exit codes:\n") else p.replace("\n", " ") for p in paragraphs]
    return "\n\n".join(joined)


for _command in COMMANDS:
    _class = SeveralRuns if _command in (evolve, simulate) else None
    app.command(help=_help_of(_command), cls=_class)(_command)
