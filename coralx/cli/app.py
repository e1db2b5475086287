"""The Typer application and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from coralx import __version__
from coralx.cli.commands import COMMANDS

app = typer.Typer(
    name="coralx",
    help="Evolve LoRA adapters: NSGA-II over configurations, trained through stages of growing "
    "budget. YAML in, a Pareto front of adapters out.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
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
        bool, typer.Option("--debug", help="Show the tracebacks of errors, too.")
    ] = False,
) -> None:
    pass


for _command in COMMANDS:
    app.command()(_command)
