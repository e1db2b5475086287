"""Runs whose front is trained once more from scratch."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from coralx.api import runs as api
from coralx.config import Config
from coralx.report.terminal import print_report
from tests.support.factories import simulated_config

STAGES = [
    {"name": "S0", "epoch_budget": 0.5, "data_percentage": 20, "survival_rate": 1.0},
    {"name": "S1", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
]
"""Everyone goes on, so that the front has several members: 1000 steps each."""


def config(*, verify: bool = True, derive: float = 0, **sections: Any) -> Config:
    """Without derived genomes, unless they are what it is about."""
    runtime = {"backend": "simulated", "verify_front": verify, **sections.pop("runtime", {})}
    defaults = {
        "experiment": {"name": "sim", "seed": 0},
        "evolution": {"population_size": 10, "generations": 3, "resize_adapters": True},
        "hyperband_config": {"training_stages": STAGES},
    }
    chosen = {**defaults, **sections}
    chosen["evolution"] = {**chosen["evolution"], "derive": {"share": derive}}
    return simulated_config(runtime=runtime, **chosen)


def front_of(outcome: api.Outcome) -> tuple[list[str], list[str]]:
    """The front's heirs, and those that were trained from scratch."""
    members = outcome.report["front"]
    heirs = [m["genome"] for m in members if m["lineage_steps"] > m["own_steps"]]
    return heirs, [m["genome"] for m in members if m["genome"] not in heirs]


def shown(outcome: api.Outcome, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    print_report(outcome.report, console)
    return console.export_text()
