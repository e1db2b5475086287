"""Stops within a stage, as runs see them: whom a genome is compared with, what is recorded of it,
and that neither workers nor interruptions change a decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from coralx.api import runs as api
from coralx.config import Config
from coralx.engine.engine import Engine
from coralx.engine.jobs import JobMaker
from coralx.engine.population import Population
from coralx.engine.state import RunState
from coralx.errors import ConfigError, Interrupted
from coralx.records.events import (
    Event,
    GenerationCompleted,
    GenerationStarted,
    StageCompleted,
    StageDecided,
)
from coralx.records.genomes import Genome
from coralx.records.jobs import Watch
from coralx.records.results import Divergence, StageResult
from coralx.records.subjects import BASELINE
from coralx.records.verdicts import Cut, Promote, Stop
from coralx.report.live import PlainLines, Silent
from coralx.report.progress import Standings
from coralx.schedule.early_stopping import WINDOWS, window_ends
from coralx.storage.history import History
from coralx.storage.layout import find_run
from coralx.storage.ledger import Ledger
from tests.support.factories import (
    make_config,
    make_facts,
    make_genome,
    make_result,
    simulated_config,
)
from tests.support.many_workers import ManyWorkers

BOTH = ("explosion", "unreachable")


def stages(within: tuple[str, ...] = BOTH) -> list[dict[str, Any]]:
    table = (("S0", 0.05, 5, 1), ("S1", 0.3, 20, 0.5), ("S2", 1, 100, 0.5), ("S3", 2, 100, 0.5))
    keys = ("name", "epoch_budget", "data_percentage", "survival_rate")
    listed = [{**dict(zip(keys, row, strict=True)), "stop_when": []} for row in table]
    return [stage | {"stop_within": within} for stage in listed[:-1]] + listed[-1:]


def config_with(within: tuple[str, ...] = BOTH, **sections: Any) -> Config:
    return simulated_config(
        **{
            "experiment": {"name": "sim", "seed": 1},
            "evolution": {"population_size": 12, "generations": 4},
            "hyperband_config": {"training_stages": stages(within)},
            **sections,
        }
    )


pytestmark = pytest.mark.usefixtures("here")


# -- the config ----------------------------------------------------------------------------------


def test_explosions_end_training_by_default_and_can_be_left_alone() -> None:
    given = make_config().hyperband_config.training_stages
    assert [stage.stop_within for stage in given] == [("explosion",)] * 4
    assert config_with(()).hyperband_config.training_stages[0].stop_within == ()


def test_full_training_ends_within_a_stage_only_what_has_diverged() -> None:
    listed = stages()
    listed[1] |= {"stop_within": ["explosion", "unreachable"]}
    listed[2] |= {"stop_within": []}
    whole = {"enable_hyperband": False, "training_stages": listed}
    state = RunState(config_with(hyperband_config=whole), History())
    kept = [stage.stop_within for stage in state.stages]
    assert kept == [("explosion",), ("explosion",), (), ("explosion",)]


def test_survivors_that_cannot_be_compared_are_refused() -> None:
    last = [*stages(), stages()[1] | {"name": "S4", "epoch_budget": 2, "data_percentage": 100}]
    with pytest.raises(ConfigError, match=r"last stage \('S4'\) cuts no one"):
        config_with(hyperband_config={"training_stages": last})
    with pytest.raises(ConfigError, match=r"adaptive_budgets.*leave out one of the two"):
        config_with(hyperband_config={"training_stages": stages(), "adaptive_budgets": True})
    with pytest.raises(ConfigError, match="stop_within"):
        config_with(("explosions",))


# -- whom a genome is compared with --------------------------------------------------------------


def curve(level: float) -> tuple[float, ...]:
    return (level,) * WINDOWS


def past(*rows: tuple[str, int, int, float, type]) -> History:
    """A history of genomes by (id, generation, bracket, training loss, verdict) at stage S1."""
    history = History()
    for generation in sorted({row[1] for row in rows}):
        these = [row for row in rows if row[1] == generation]
        born = tuple(replace(make_genome(r[0]), generation=generation, bracket=r[2]) for r in these)
        history.apply(GenerationStarted(generation, born))
        for genome, _, _, level, _ in these:
            result = replace(make_result(genome, stage="S1"), curve=curve(level))
            history.apply(StageCompleted(generation, result))
        verdicts = tuple(
            kind(r[0]) if kind is Promote else Cut(r[0], 9, 1) for r in these for kind in (r[4],)
        )
        history.apply(StageDecided(generation, "S1", verdicts))
    return history


def watch_of(history: History, genome: Genome, place: int = 1, config: Config | None = None) -> Any:
    if genome.id != BASELINE:
        history.apply(GenerationStarted(genome.generation, (genome,)))
    config = config or config_with()
    state = RunState(config, history)
    maker = JobMaker(state, make_facts(16000), None)
    return maker.train(genome, state.stages[place]).watch


def test_the_bar_is_the_slowest_of_those_who_went_on_in_earlier_generations() -> None:
    history = past(
        ("a", 0, 0, 0.5, Promote),
        ("b", 0, 0, 0.9, Cut),
        ("c", 1, 0, 0.6, Promote),
        ("d", 2, 0, 0.8, Promote),
    )
    newborn = Genome("e", 2, make_genome("e").genes)
    assert watch_of(history, newborn) == Watch(explosion=True, survivors=curve(0.6))
    assert watch_of(history, replace(newborn, generation=1)) == Watch(explosion=True)  # one only
    assert watch_of(history, replace(newborn, generation=3)).survivors == curve(0.8)


def test_brackets_stages_and_short_curves_are_kept_apart() -> None:
    history = past(
        ("a", 0, 0, 0.5, Promote),
        ("b", 0, 1, 0.9, Promote),
        ("c", 0, 0, 0.6, Promote),
        ("d", 0, 1, 0.7, Promote),
    )
    newborn = Genome("e", 1, make_genome("e").genes)
    assert watch_of(history, newborn).survivors == curve(0.6)
    assert watch_of(history, replace(newborn, bracket=1)).survivors == curve(0.9)
    assert watch_of(history, newborn, place=0).survivors == ()
    short = replace(history.results["a", "S1"], curve=())  # fewer steps than windows, or an old run
    history.apply(StageCompleted(0, short))
    assert watch_of(history, newborn).survivors == ()


def test_nothing_ends_the_baseline_or_a_stage_that_watches_nothing() -> None:
    history = past(("a", 0, 0, 0.5, Promote), ("b", 0, 0, 0.6, Promote))
    genome = Genome(BASELINE, 1, make_genome("x").genes)
    assert watch_of(history, genome) == Watch()
    newborn = replace(genome, id="c")
    assert watch_of(history, newborn, config=config_with(())) == Watch()
    assert watch_of(history, newborn, config=config_with(("explosion",))) == Watch(explosion=True)


def test_what_verifies_an_heir_from_scratch_is_trained_to_the_end() -> None:
    maker = JobMaker(RunState(config_with(), History()), make_facts(16000), None)
    assert maker.from_scratch(make_genome("a")).watch == Watch()


# -- what becomes of those that are stopped ------------------------------------------------------


def test_only_spoilt_weights_are_not_inherited() -> None:
    genomes = [make_genome(name) for name in "abcd"]
    ends = (
        None,
        Divergence(70, "loss"),
        Divergence(70, "loss", "exploded", 3.0, 0.7),
        Divergence(70, "loss", "unreachable", 0.7, 0.6),
    )
    history = History()
    history.apply(GenerationStarted(0, tuple(genomes)))
    for genome, ended in zip(genomes, ends, strict=True):
        history.apply(StageCompleted(0, make_result(genome.id, {"auroc": 0.7}, stage="S0")))
        result = make_result(genome.id, stage="S1", last_step=70, divergence=ended)
        history.apply(StageCompleted(0, result))
    history.apply(GenerationCompleted(0, tuple("abcd")))
    population = Population(RunState(config_with(), history), make_facts(), Ledger())
    assert population._donors("abcd") == ["a", "d"]
    assert history.last_result("d") == history.results["d", "S0"]


# -- whole runs ----------------------------------------------------------------------------------


def search(config: Config, *, workers: int = 1) -> list[Event]:
    executor = ManyWorkers(workers)
    facts = executor.start(config, None, lambda _: None)
    ledger = Ledger()
    Engine(config, facts, executor, ledger, None).search()
    return list(ledger)


def results_in(events: Iterable[Event]) -> dict[tuple[str, str], StageResult]:
    return {
        (event.result.genome, event.result.stage): event.result
        for event in events
        if isinstance(event, StageCompleted)
    }


def unreachable_in(events: Iterable[Event]) -> list[StageResult]:
    return [
        result
        for result in results_in(events).values()
        if result.divergence is not None and result.divergence.kind == "unreachable"
    ]


def test_the_order_in_which_genomes_complete_changes_no_decision() -> None:
    in_turn, at_once = search(config_with()), search(config_with(), workers=5)
    assert results_in(in_turn) == results_in(at_once)
    assert list(results_in(in_turn)) != list(results_in(at_once))
    decided = [[e for e in run if isinstance(e, StageDecided)] for run in (in_turn, at_once)]
    assert decided[0] == decided[1]
    assert unreachable_in(in_turn)


def test_those_who_cannot_reach_the_survivors_stop_at_a_windows_end_with_a_reason() -> None:
    events = search(config_with())
    stopped = unreachable_in(events)
    born = {g.id: g for e in events if isinstance(e, GenerationStarted) for g in e.genomes}
    verdicts = {
        (verdict.genome, event.stage): verdict
        for event in events
        if isinstance(event, StageDecided)
        for verdict in event.verdicts
    }
    assert stopped
    for result in stopped:
        ended = result.divergence
        assert ended is not None
        assert born[result.genome].generation > 0
        assert (result.metrics, result.checkpoint) == ({}, None)
        assert result.last_step == ended.step
        planned = {"S1": (3, 60), "S2": (60, 1000)}[result.stage]
        ends = [planned[0] + end for end in window_ends(planned[1] - planned[0])]
        assert ended.step in ends[:-1]
        assert len(result.curve) == ends.index(ended.step) + 1
        verdict = verdicts[result.genome, result.stage]
        assert verdict == Stop(result.genome, ended.reason, None, ended.step)
        assert "cannot reach the survivors'" in verdict.rule


def test_it_saves_steps_and_is_off_by_default() -> None:
    def steps(events: list[Event]) -> int:
        return sum(result.steps for result in results_in(events).values())

    assert steps(search(config_with())) < steps(search(config_with(("explosion",))))
    assert unreachable_in(search(config_with(("explosion",)))) == []


class KillAfter(Silent):
    """Ends the process, as it were, once so many stages are completed."""

    def __init__(self, count: int) -> None:
        self.left = count

    def on_event(self, event: Event) -> None:
        self.left -= isinstance(event, StageCompleted)
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("count", [40, 75, 90])
def test_a_killed_run_stops_the_same_genomes(count: int) -> None:
    with pytest.raises(Interrupted):
        api.evolve(config_with(), "cut", KillAfter(count))
    resumed = api.resume(find_run("cut"))
    whole = api.evolve(config_with(), "whole")
    assert resumed.report["stopped"] == whole.report["stopped"]
    assert any("cannot reach" in entry["rule"] for entry in whole.report["stopped"])
    assert resumed.report["front"] == whole.report["front"]


def test_views_tell_at_once_why_a_genome_was_stopped() -> None:
    spoken = StringIO()
    view = PlainLines(Console(file=spoken, width=200))
    view.begin(config_with())
    standings = Standings(config_with())
    ended = Divergence(41, "loss", "exploded", 2.3125, 0.7)
    event = StageCompleted(0, make_result("a", stage="S1", last_step=41, divergence=ended))
    view.on_event(event)
    standings.on_event(event)
    reason = "training loss exploded (2.31 against 0.7 untuned)"
    assert standings.state["a"] == f"stopped at S1, step 41: {reason}"
    assert f"a S1: {reason}, at step 41, after 41 steps" in spoken.getvalue()
