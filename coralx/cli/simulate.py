"""`coralx simulate`: the plan and its price, before anything is paid."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coralx.cli.shared import ConfigPath, Overrides, output_console, print_json
from coralx.config import load_config
from coralx.plan import compare, plan_for, plan_json
from coralx.schedule.stages import Plan


def command(
    config_path: ConfigPath,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print what one generation costs, and what three strategies would find. Trains nothing."""
    config = load_config(config_path, overrides or ())
    plan = plan_for(config)
    strategies = compare(config)
    if as_json:
        print_json(
            {
                "plan": plan_json(plan),
                "strategies": [vars(strategy) for strategy in strategies],
            }
        )
        return
    console = output_console()
    _print_plan(plan, console)
    console.print()
