"""`coralx report`: a run's front, and what it cost."""

from __future__ import annotations

from coralx.api import runs as api
from coralx.cli.consoles import output_console, print_json
from coralx.report.terminal import print_report
from coralx.report.weighted_sum import parse_weights, weighted
from coralx.storage.layout import find_run


def carry_out(run: str, weights: str | None, *, as_json: bool) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    report = api.read_report(find_run(run))
    if weights is not None:
        objectives = report["objectives"]
        given = parse_weights(weights, [objective["metric"] for objective in objectives])
        report["weighted"] = weighted(report["front"], objectives, given)
    if as_json:
        print_json(report)
    else:
        print_report(report, output_console())
