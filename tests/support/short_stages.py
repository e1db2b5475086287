"""Searches on simulated curves through the published budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coralx.config import Config
from coralx.config.mode import resolve_mode
from coralx.engine.engine import Engine
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import RunStarted
from coralx.schedule.stages import stages_of
from coralx.storage.ledger import FORMAT, Ledger
from tests.support.factories import (
    make_config,
    simulated_config,
)

PUBLISHED = stages_of(make_config().hyperband_config.training_stages)


def started(config: Config, revision: int = 2) -> tuple[Engine, RunStarted]:
    resolved = resolve_mode(config, None, "simulated")
    executor = InProcessExecutor("simulated")
    facts = executor.start(resolved, None, lambda _: None)
    settings = replace(executor.settings, revision=revision)
    event = RunStarted(FORMAT, "x", "simulation", 0, facts, settings, {}, {}, 0.0)
    ledger = Ledger()
    ledger.append(event)
    return Engine(resolved, facts, executor, ledger, None), event


def played(config: Config, revision: int = 2) -> Engine:
    """A search on simulated curves, in memory."""
    engine, _ = started(config, revision)
    engine.search()
    return engine


def published(
    steps_per_epoch: int, rates: Sequence[float] = (1.0, 0.5, 0.25, 0.1), **schedule: Any
) -> Config:
    """The published budgets; the first stage has a rule that stops a few simulated genomes."""
    table = zip((0.05, 0.3, 1.0, 2.0), (5, 20, 100, 100), rates, strict=True)
    stages = [
        {
            "name": f"S{n}",
            "epoch_budget": e,
            "data_percentage": d,
            "survival_rate": r,
            "stop_when": [],
        }
        for n, (e, d, r) in enumerate(table)
    ]
    stages[0]["stop_when"] = ["gradient_norm > 0.75", "loss_slope > 0"]
    evolution = schedule.pop("evolution", {"population_size": 8, "generations": 1})
    return simulated_config(
        search_space=schedule.pop("search_space", {}),
        data={"steps_per_epoch": steps_per_epoch},
        evolution=evolution,
        hyperband_config={"training_stages": stages, **schedule},
    )


def verdicts(engine: Engine, stage: str) -> list[Any]:
    return [v for (_, s), d in engine.history.decisions.items() if s == stage for v in d.verdicts]
