"""`coralx report`: what a run brought."""

from __future__ import annotations

from typing import Annotated

import typer

from coralx import api
from coralx.cli.consoles import output_console, print_json
from coralx.cli.shared import run_names
from coralx.report.terminal import print_report
from coralx.report.weighted import parse_weights, weighted
from coralx.run.layout import find_run


def command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, a run's name under runs/, or latest.",
            autocompletion=run_names,
        ),
    ] = "latest",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of tables.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC=WEIGHT,...",
            help="Also one number for each of the front, the weighted sum of its objectives, each "
            "scaled over the front to 0 to 1; those not named count 1. Replaces the config's "
            "weights, and changes nothing in the run.",
        ),
    ] = None,
) -> None:
    """Show a run's front and what it cost. Needs the run folder only, and loads no model."""
    report = api.read_report(find_run(run))
    if weights is not None:
        objectives = report["objectives"]
        given = parse_weights(weights, [objective["metric"] for objective in objectives])
        report["weighted"] = weighted(report["front"], objectives, given)
    if as_json:
        print_json(report)
    else:
        print_report(report, output_console())
