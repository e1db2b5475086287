"""How the driver's work grows with the search: counted in calls, not in seconds."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from coralx.engine.engine import Engine
from coralx.engine.hypervolume_reference import reference_of
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import RunStarted
from coralx.report.summary import summarise
from coralx.storage.ledger import FORMAT, Ledger
from tests.support.factories import simulated_config


def calls_of_search(population: int, generations: int) -> int:
    """Calls of functions, those of C among them, of a search with derivations and its report."""
    config = simulated_config(
        evolution={
            "population_size": population,
            "generations": generations,
            "derive": {"share": 0.1},
        }
    )
    executor = InProcessExecutor("simulated")
    ledger = Ledger()
    facts = executor.start(config, None, lambda _: None)
    box = reference_of(config, facts)
    settings = executor.settings
    ledger.append(
        RunStarted(FORMAT, "x", "simulation", 7, facts, settings, {}, {}, 0.0, reference=box)
    )
    engine = Engine(config, facts, executor, ledger, None)
    count = 0

    def note(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        engine.run()
        summarise(config, ledger.entries, None)
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture(scope="module")
def small() -> int:
    calls_of_search(4, 2)  # what is made once in a process is made now
    return calls_of_search(16, 4)


def test_work_grows_with_generations_about_as_their_number(small: int) -> None:
    assert calls_of_search(16, 12) < 3 * small


def test_work_grows_with_genomes_about_as_their_number(small: int) -> None:
    assert calls_of_search(48, 4) < 3 * small
