"""Reports as a terminal shows them, and parts of reports."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from coralx.report.terminal import print_report

LENIENT = {
    "training_stages": [
        {"name": "S0", "epoch_budget": 0.5, "data_percentage": 20, "survival_rate": 1.0},
        {"name": "S1", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
    ]
}
"""Everyone goes on, so that the front has several members."""


def interval(value: float | None, spread: float = 0.0) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": value - spread / 2, "high": value + spread / 2}


def shown(report: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_report(report, console)
    return console.export_text()
