"""`coralx report`: a run's front, and what it cost."""

from __future__ import annotations

from coralx.api import runs as api
from coralx.api.profile import recorded_matrix_products
from coralx.cli.consoles import output_console, print_json
from coralx.report.profile_table import print_profile
from coralx.report.terminal import print_report
from coralx.report.weighted_sum import parse_weights, weighted
from coralx.storage.layout import find_run


def carry_out(run: str, weights: str | None, *, as_json: bool, profile: bool) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    layout = find_run(run)
    report = api.read_report(layout)
    if weights is not None:
        objectives = report["objectives"]
        given = parse_weights(weights, [objective["metric"] for objective in objectives])
        report["weighted"] = weighted(report["front"], objectives, given)
    if as_json:
        print_json(report)
    elif profile:
        print_profile(report["profile"], recorded_matrix_products(layout), output_console())
    else:
        print_report(report, output_console())
