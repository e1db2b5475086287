"""What a search cost against full training: the figure that people come for."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from coralx.config import Config
from coralx.config.mode import resolve_mode
from coralx.engine.engine import Engine
from coralx.engine.state import RunState
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import (
    AttemptFailed,
    CheckpointRestored,
    FrontMeasured,
    RunResumed,
    RunStarted,
    WorkerStarted,
)
from coralx.records.genomes import Genome
from coralx.records.mode import Mode
from coralx.records.results import Measurement
from coralx.records.run_facts import Settings
from coralx.records.verdicts import Stop
from coralx.report.efficiency import efficiency_of
from coralx.storage.history import History
from coralx.storage.ledger import FORMAT, Ledger
from coralx.storage.overheads import Overheads
from tests.support.factories import make_config, make_facts


def played(config: Config, mode: Mode, given: list[Genome] | None = None) -> Engine:
    """A search on simulated curves, in memory."""
    resolved = resolve_mode(config, mode, "simulated")
    executor = InProcessExecutor("simulated")
    facts = executor.start(resolved, None, lambda _: None)
    ledger = Ledger()
    ledger.append(RunStarted(FORMAT, "x", mode, 0, facts, executor.settings, {}, {}, 0.0))
    engine = Engine(resolved, facts, executor, ledger, None, given=given or ())
    engine.search()
    return engine


def efficiency(engine: Engine) -> dict[str, Any]:
    return efficiency_of(engine.state)


def fully_trained(engine: Engine) -> dict[str, Any]:
    """What `--mode full` reports of the same genomes, all of which it trains from scratch."""
    genomes = engine.history.genomes.values()
    given = [Genome(g.id, 0, g.genes) for g in genomes if g.continues is None]
    evolution = engine.config.evolution.model_copy(update={"generations": 1})
    config = engine.config.model_copy(update={"evolution": evolution})
    return efficiency(played(config, "full", given))


def random_config(seed: int) -> Config:
    """Any schedule, with rates at which many genomes diverge; nobody is cut before the warm-up,
    after which that shows."""
    rng = Random(seed)
    places = rng.randint(2, 4)
    budgets = sorted(rng.choice([0.01, 0.05, 0.1, 0.3, 0.5, 1.0]) for _ in range(places - 1))
    budgets.append(rng.choice([1.0, 2.0]))
    rates = [rng.choice([1.0, 0.75, 0.5, 0.3]) for _ in budgets]
    if 5 * budgets[0] < budgets[1]:
        rates[0] = 1.0
    stages = [
        {"name": f"S{n}", "epoch_budget": epochs, "data_percentage": 100, "survival_rate": rate}
        for n, (epochs, rate) in enumerate(zip(budgets, rates, strict=True))
    ]
    high = rng.choice([5e-3, 0.05, 0.5])
    adaptive = rng.random() < 0.2
    return make_config(
        experiment={"name": "x", "seed": seed},
        data={"steps_per_epoch": rng.choice([5, 80, 300, 1000])},
        search_space={
            "learning_rate": {"low": 1e-4, "high": high, "log": True},
            "batch_size": {"choices": [8, 16, 32]},
        },
        evolution={
            "population_size": rng.choice([6, 8, 16]),
            "generations": rng.choice([1, 2, 3]),
        },
        hyperband_config={
            "brackets": 1 if adaptive else rng.choice([1, 2]),
            "promotion": "synchronous" if adaptive else rng.choice(["synchronous", "asynchronous"]),
            "adaptive_budgets": adaptive,
            "training_stages": stages,
        },
    )


@pytest.mark.parametrize("seed", range(60))
def test_the_ratio_is_the_one_that_full_training_measures(seed: int) -> None:
    engine = played(random_config(seed), "simulation")
    ours, full = efficiency(engine), fully_trained(engine)
    if not engine.front():
        assert ours["efficiency_ratio"] is None
        return
    assert ours["compared_genomes"] == ours["total_genomes"]
    measured = full["total_training_time"] / ours["total_training_time"]
    assert ours["efficiency_ratio"] == pytest.approx(measured, rel=0.02)
    assert ours["step_ratio"] == pytest.approx(
        full["actual_steps"] / ours["actual_steps"], rel=0.02
    )


def test_no_genome_counts_as_diverging_for_one_that_trains_less_stably() -> None:
    """A rank of 32 diverges at a rate at which one of 2 trains to the end, in batches of 2."""
    config = make_config(
        experiment={"name": "x", "seed": 1305},
        data={"steps_per_epoch": 20},
        search_space={
            "learning_rate": {"low": 1e-4, "high": 0.05, "log": True},
            "batch_size": {"choices": [2, 128]},
        },
        evolution={"population_size": 6, "generations": 2},
        hyperband_config={"brackets": 2},
    )
    engine = played(config, "simulation")
    ended = [r for r in engine.history.results.values() if r.divergence]
    assert {engine.history.genomes[r.genome].genes.batch_size for r in ended} == {2, 128}
    naive = fully_trained(engine)["actual_steps"]
    assert efficiency(engine)["naive_steps"] == pytest.approx(naive, rel=0.02)


def test_a_genome_stopped_for_signs_of_divergence_counts_as_diverging_after_its_warmup() -> None:
    config = make_config(
        experiment={"name": "x", "seed": 1},
        data={"steps_per_epoch": 4000},  # the first stage ends within warm-up
        search_space={"learning_rate": {"low": 1e-3, "high": 0.1, "log": True}},
        evolution={"population_size": 8, "generations": 1},
    )
    engine = played(config, "simulation")
    decision = engine.history.decisions[0, "S0_sanity"]
    assert any(isinstance(v, Stop) and v.value is not None for v in decision.verdicts)
    naive = fully_trained(engine)["actual_steps"]
    assert efficiency(engine)["naive_steps"] == naive


def test_full_training_is_no_cheaper_than_itself() -> None:
    config = make_config(
        experiment={"name": "x", "seed": 3},
        data={"steps_per_epoch": 100},
        search_space={"learning_rate": {"low": 1e-4, "high": 0.5, "log": True}},
        evolution={"population_size": 16, "generations": 1},
    )
    engine = played(config, "full")
    found = efficiency(engine)
    assert any(result.divergence for result in engine.history.results.values())
    assert found["step_ratio"] == 1
    assert found["efficiency_ratio"] == pytest.approx(1, abs=1e-9)
    scored = [r for r in engine.history.results.values() if r.eval_seconds]
    assert {result.stage for result in scored} == {"S3_finisher"}
    assert all("auroc" not in r.metrics for r in engine.history.results.values() if r not in scored)


def test_there_is_no_ratio_until_something_has_finished() -> None:
    config = make_config(
        experiment={"name": "x", "seed": 1},
        data={"steps_per_epoch": 1000},
        evolution={"population_size": 6, "generations": 2},
    )
    resolved = resolve_mode(config, "simulation", None)
    executor = InProcessExecutor("simulated")
    facts = executor.start(resolved, None, lambda _: None)
    engine = Engine(resolved, facts, executor, Ledger(), None)
    engine.history.apply(
        RunStarted(FORMAT, "x", "simulation", 0, facts, executor.settings, {}, {}, 0.0)
    )
    for _ in engine.stages[:-1]:
        engine.train_round()
        found = efficiency(engine)
        assert found["efficiency_ratio"] is found["step_ratio"] is found["time_savings"] is None
        assert "no genome has finished" in found["note"]
    engine.train_round()
    decided = efficiency(engine)
    assert decided["note"] is None
    assert decided["step_ratio"] > 1
    engine.train_round()
    under_way = efficiency(engine)
    assert under_way["step_ratio"] == decided["step_ratio"]  # of the first generation alone
    assert "generation 2" in under_way["note"]
    assert (under_way["total_genomes"], under_way["compared_genomes"]) == (12, 6)


def test_what_is_trained_again_is_paid_again() -> None:
    engine = played(random_config(1), "simulation")
    before = efficiency(engine)
    result = next(r for (_, stage), r in engine.history.results.items() if stage == "S1")
    engine.history.apply(CheckpointRestored(0, replace(result, train_seconds=100.0)))
    after = efficiency(engine)
    assert after["actual_steps"] == before["actual_steps"] + result.steps
    assert after["total_training_time"] == pytest.approx(before["total_training_time"] + 102.0)
    assert after["naive_steps"] == before["naive_steps"]
    assert after["efficiency_ratio"] < before["efficiency_ratio"]


def test_what_a_run_spends_beside_training_counts_where_it_was_spent() -> None:
    """Start and measurement on both sides; on ours alone what a naive run would not have paid."""
    facts = replace(make_facts(), device="cpu")
    started = RunStarted(FORMAT, "x", "hyperband", 0, facts, Settings(2, 1, "fp32"), {}, {}, 7.0)
    measured = Measurement("a", {}, {}, seconds=3.0)
    overheads = Overheads()
    for event in (
        started,
        WorkerStarted(0, 1, "cpu", 1, 5.0),  # within the start
        WorkerStarted(1, 2, "cpu", 1, 2.0),
        AttemptFailed("a", "S0", 11.0),
        WorkerStarted(2, 3, "cpu", 1, 2.5),  # in place of one that died
        RunResumed(6.0, 2),
        WorkerStarted(0, 4, "cpu", 1, 5.0),
        WorkerStarted(1, 5, "cpu", 1, 1.5),
        FrontMeasured(measured),
        FrontMeasured(measured),
    ):
        overheads.apply(event)
    assert (overheads.start, overheads.measuring) == (9.0, 3.0)
    assert (overheads.restarts, overheads.measured_again) == (10.0, 3.0)
    assert [attempt.seconds for attempt in overheads.attempts] == [11.0]
    history = History()
    history.apply(started)
    history.overheads = overheads
    found = efficiency_of(RunState(make_config(), history))
    assert found["total_training_time"] == 9.0 + 3.0 + 10.0 + 3.0 + 11.0
    assert found["efficiency_ratio"] is None
    assert sum(found["beside_training"].values()) == found["total_training_time"]
