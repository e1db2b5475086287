"""The Typer application and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from coralx import __version__
from coralx.cli import doctor, evolve, report, simulate, stage, validate

app = typer.Typer(
    name="coralx",
    help="Evolve LoRA adapters: NSGA-II over configurations, trained through stages of growing "
    "budget. YAML in, a Pareto front of adapters out.",
    no_args_is_help=True,
    add_completion=False,
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
        bool, typer.Option("--debug", help="Show tracebacks of known errors, too.")
    ] = False,
) -> None:
    pass


app.command("evolve")(evolve.command)
app.command("stage")(stage.command)
app.command("simulate")(simulate.command)
app.command("report")(report.command)
app.command("validate")(validate.command)
app.command("doctor")(doctor.command)
