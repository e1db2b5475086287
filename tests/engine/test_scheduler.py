"""What the engine's loop asks of a scheduler, of either kind: a search in memory, cut anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from coralx.config import Config
from coralx.config.runtime import Budget
from coralx.engine.asha import Asha
from coralx.engine.budget import Allowance
from coralx.engine.engine import Engine
from coralx.engine.halving import Halving
from coralx.execution.executor import AnyJob, JobOutcome
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import BudgetSpent, StageCompleted
from coralx.storage.ledger import Ledger
from tests.support.factories import simulated_config


class Killed(BaseException):
    """The process ends."""


class Mortal(InProcessExecutor):
    """Trains in this very process, which is killed before the outcome of that number is seen."""

    def __init__(self, end: int | None) -> None:
        super().__init__("simulated")
        self._left = end

    def run(
        self, tasks: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        for outcome in super().run(tasks, deadline):
            if self._left == 0:
                raise Killed
            if self._left is not None:
                self._left -= 1
            yield outcome


@pytest.fixture(params=["synchronous", "asynchronous"])
def config(request: pytest.FixtureRequest) -> Config:
    return simulated_config(
        hyperband_config={"promotion": request.param},
        evolution={"population_size": 6, "generations": 2},
    )


def engine_on(ledger: Ledger, config: Config, end: int | None = None, **budget: Any) -> Engine:
    executor = Mortal(end)
    facts = executor.start(config, None, lambda _: None)
    allowance = Allowance(Budget(**budget))
    return Engine(config, facts, executor, ledger, None, allowance=allowance)


def trained(ledger: Ledger) -> list[tuple[str, str]]:
    return [(e.result.genome, e.result.stage) for e in ledger if isinstance(e, StageCompleted)]


def test_each_schedule_has_its_scheduler() -> None:
    together = engine_on(Ledger(), simulated_config())
    singly = engine_on(Ledger(), simulated_config(hyperband_config={"promotion": "asynchronous"}))
    assert isinstance(together._scheduler, Halving)
    assert isinstance(singly._scheduler, Asha)


def test_once_nothing_is_left_there_is_no_further_round(config: Config) -> None:
    ledger = Ledger()
    engine = engine_on(ledger, config)
    assert engine.has_more
    assert engine.search()
    assert not engine.has_more
    before = len(ledger.entries)
    assert not engine.train_round()
    assert engine_on(ledger, config).search() == engine.front()
    assert len(ledger.entries) == before


@pytest.mark.parametrize("end", [0, 1, 5, 8, 15])
def test_one_made_anew_goes_on_where_the_ledger_ends(config: Config, end: int) -> None:
    whole, cut = Ledger(), Ledger()
    front = engine_on(whole, config).search()
    with pytest.raises(Killed):
        engine_on(cut, config, end).search()
    assert len(trained(cut)) == end
    assert engine_on(cut, config).search() == front
    assert trained(cut) == trained(whole)  # in the same order, and nothing twice


def test_a_spent_budget_ends_a_round_and_a_greater_one_goes_on(config: Config) -> None:
    whole, short = Ledger(), Ledger()
    front = engine_on(whole, config).search()
    engine = engine_on(short, config, max_steps=3000)
    engine.search()
    assert engine.has_more
    assert sum(isinstance(event, BudgetSpent) for event in short) == 1
    assert 0 < len(trained(short)) < len(trained(whole))
    assert engine_on(short, config).search() == front
    assert trained(short) == trained(whole)
