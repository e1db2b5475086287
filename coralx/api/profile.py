"""How fast a run's machine multiplies matrices, against which its training is held."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from coralx.records.run_facts import Facts, Settings
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from coralx.system.files import write_atomically
from coralx.system.python_process import module_command

PATIENCE = 300.0
"""Seconds for the whole process, most of which starts torch."""


def measure_matrix_products(layout: RunLayout) -> dict[str, Any] | None:
    """Measure, while no worker trains, the rate of one worker's matrix products in the shapes of
    the run's base, and keep it in `profile.json`. None where these are not known, as in a
    simulation, or where it cannot be measured."""
    history = History(Ledger.read_events(layout.ledger))
    started = history.started
    results = [result for result in history.results.values() if result.trained_tokens]
    if started is None or started.facts.footprint is None or not results:
        return None
    tokens = sum(result.trained_tokens for result in results)
    rows = max(1, round(tokens / sum(result.steps for result in results)))
    asked = _asked(started.facts, started.settings, rows)
    if not asked["shapes"]:
        return None
    command = module_command("coralx.training.matrix_rate", json.dumps(asked))
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)
        measured = {**asked, **json.loads(done.stdout)}
    except (subprocess.SubprocessError, OSError, ValueError):
        return None  # a figure beside others: what was trained is not lost for it
    del measured["shapes"]
    write_atomically(layout.profile, json.dumps({"matrix_products": measured}, indent=2) + "\n")
    return measured


def recorded_matrix_products(layout: RunLayout) -> dict[str, Any] | None:
    """What was measured at the run's end; None where nothing was."""
    try:
        measured = json.loads(layout.profile.read_text(encoding="utf-8"))["matrix_products"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return measured if isinstance(measured, dict) and "flops_per_second" in measured else None


def _asked(facts: Facts, settings: Settings, rows: int) -> dict[str, Any]:
    """What is to be measured: the base's layers, for as many tokens as a step had on average."""
    linear = facts.footprint.linear if facts.footprint is not None else ()
    return {
        "shapes": [(inputs, outputs) for _, inputs, outputs in linear],
        "rows": rows,
        "precision": settings.precision,
        "device": facts.device.partition(":")[0],
        "threads": settings.threads_per_worker,
    }
