"""The Typer application and its commands, each imported when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coralx import __version__

COMMANDS = {
    "evolve": "Evolve LoRA adapters: train, cut, breed, and hand over the Pareto front.",
    "stage": "Train one stage of a run's current generation, then stop.",
    "simulate": "Print what one generation costs, and what three strategies would find. Trains "
    "nothing.",
    "report": "Show a run's front and what it cost. Needs the run folder only, and loads no model.",
    "validate": "Check a config without training: every problem at once, with its key and what is "
    "allowed.",
    "doctor": "Say what this machine can do: cores, memory, GPUs, packages, and which backend "
    "trains.",
}
"""The modules in this folder that are a command, and the first line of what each says of itself:
to list them must not cost what they import."""


class Commands(TyperGroup):
    """Puts a command in the place of its line once it is asked for by name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, line, rest = super().resolve_command(ctx, args)
        return name, line if name is None else _imported(name), rest


def _imported(name: str) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(import_module(f"coralx.cli.{name}").command)
    return typer.main.get_command(alone)


app = typer.Typer(
    name="coralx",
    cls=Commands,
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


for _name, _line in COMMANDS.items():
    app.command(_name, help=_line)(lambda: None)
