"""Asynchronous promotion: who may go on, that no worker waits, and that a kill loses nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.engine.engine import Engine
from coralx.engine.stage_decisions import promotion_order
from coralx.errors import ConfigError, Interrupted, UsageError
from coralx.execution.executor import AnyJob, JobOutcome
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import (
    BudgetSpent,
    Event,
    GenerationStarted,
    RunCompleted,
    StageCompleted,
    StageDecided,
    WorkerStarted,
)
from coralx.records.jobs import Job, MeasureJob
from coralx.records.results import Divergence, StageResult
from coralx.records.verdicts import Cut, Finish, Promote, Stop
from coralx.schedule.promotion import promotable
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from coralx.system.files import verify_folder
from tests.support.factories import make_config, make_stages, simulated_config
from tests.support.simulated_runs import KillAfter

THIRD, _ = make_stages((1, 10, 0.34), (1, 100, 1.0))
ASYNCHRONOUS = {"promotion": "asynchronous"}


def asynchronous_config(**sections: Any) -> Any:
    sections.setdefault("evolution", {"population_size": 6, "generations": 3})
    sections.setdefault("hyperband_config", ASYNCHRONOUS)
    return simulated_config(**sections)


pytestmark = pytest.mark.usefixtures("here")


def test_the_rule_of_asha() -> None:
    """Li et al. 2020, algorithm 2, lines 11 to 15: the top third that is not promoted yet."""
    assert promotable(THIRD, ["a", "b"], 2, []) == []
    assert promotable(THIRD, ["a", "b", "c"], 3, []) == ["a"]
    assert promotable(THIRD, ["d", "a", "b", "c"], 4, ["a"]) == ["d"]
    assert promotable(THIRD, list("abcdef"), 6, ["a"]) == ["b"]
    assert promotable(THIRD, ["a"], 6, []) == ["a"]  # the others were stopped, but they count


@given(st.permutations(list("abcdefgh")), st.integers(0, 8))
def test_all_of_the_best_share_go_on_and_nobody_twice(order: list[str], seen: int) -> None:
    promoted: list[str] = []
    for count in range(seen + 1):
        so_far = [genome for genome in order if genome in sorted(order)[:count]]
        promoted += promotable(THIRD, so_far, count, promoted)
    best = [genome for genome in order if genome in sorted(order)[:seen]]
    assert set(best[: int(THIRD.survival_rate * seen)]) <= set(promoted)
    assert len(promoted) == len(set(promoted))


class Workers:
    """An executor in this very process that has several jobs under way at once, and completes them
    in an order of its own: the last one taken first."""

    def __init__(self, count: int) -> None:
        self._inner = InProcessExecutor("simulated")
        self._count = count
        self.idle: list[int] = []

    def start(self, *arguments: Any) -> Any:
        facts = self._inner.start(*arguments)
        self.settings = replace(self._inner.settings, workers=self._count)
        return facts

    def close(self) -> None:
        self._inner.close()

    def run(
        self, tasks: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        source, busy = iter(tasks), list[AnyJob]()
        while True:
            while len(busy) < self._count and (task := next(source, None)) is not None:
                busy.append(task)
            if not busy:
                return
            self.idle.append(self._count - len(busy))
            yield from self._inner.run([busy.pop()])


def search(config: Any, workers: Workers) -> tuple[Engine, list[Event]]:
    facts = workers.start(config, None, lambda _: None)
    ledger = Ledger()
    engine = Engine(config, facts, workers, ledger, None)
    engine.search()
    return engine, list(ledger)


@pytest.mark.parametrize("count", [1, 3])
def test_every_genome_gets_its_verdicts_and_no_worker_waits(count: int) -> None:
    workers = Workers(count)
    engine, events = search(asynchronous_config(), workers)
    started = [e for e in events if isinstance(e, GenerationStarted)]
    assert [e.generation for e in started] == [0, 1, 2]
    verdicts: dict[tuple[str, str], list[Any]] = {}
    for event in events:
        if isinstance(event, StageDecided):
            for verdict in event.verdicts:
                verdicts.setdefault((verdict.genome, event.stage), []).append(verdict)
    assert all(len(found) == 1 for found in verdicts.values())
    for (genome, stage), result in engine.history.results.items():
        assert (genome, stage) in verdicts, result
    kinds = {type(found[0]) for found in verdicts.values()}
    assert {Promote, Cut, Finish, Stop} >= kinds
    assert engine.front()
    done = engine.history.results
    for (genome, stage), found in verdicts.items():
        if isinstance(found[0], Promote):
            following = engine.stages[[s.name for s in engine.stages].index(stage) + 1].name
            assert (genome, following) in done
    # only when nothing is left to breed may a worker be without a job
    last_birth = events.index(started[-1])
    before = sum(isinstance(e, StageCompleted) for e in events[:last_birth])
    assert not any(workers.idle[: before + 1])


@pytest.mark.parametrize("count", [5, 6, 7, 8])
def test_more_workers_than_genomes(count: int) -> None:
    """A generation is bred when half a population is known, however many workers are idle."""
    engine, events = search(asynchronous_config(), Workers(count))
    assert engine.front()
    for generation in (0, 1):
        assert len(engine.history.populations[generation]) == 6
    started = [e for e in events if isinstance(e, GenerationStarted)]
    known = {e.result.genome for e in events[: events.index(started[1])] if is_result(e)}
    assert len(known) >= 3


def is_result(event: Event) -> bool:
    return isinstance(event, StageCompleted)


def test_founders_that_all_diverge_do_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    train = SimulatedBackend.train

    def diverging(self: SimulatedBackend, job: Job, report: Any, beat: Any) -> StageResult:
        result = train(self, job, report, beat)
        if job.genome.generation:
            return result
        return replace(result, metrics={}, checkpoint=None, divergence=Divergence(1, "loss"))

    monkeypatch.setattr(SimulatedBackend, "train", diverging)
    engine, _ = search(asynchronous_config(), Workers(1))
    assert sorted(engine.history.generations) == [0, 1, 2]
    assert engine.front()


@pytest.mark.parametrize("seed", range(6))
def test_those_go_on_whom_the_rule_of_asha_names(seed: int) -> None:
    """Worked out once more from the order of completion. Who is stopped in a later stage keeps its
    place in the earlier one."""
    rate = 0.25
    stages = [
        {"name": "S0", "epoch_budget": 0.1, "data_percentage": 100, "survival_rate": rate},
        {"name": "S1", "epoch_budget": 0.5, "data_percentage": 100, "survival_rate": 0.5,
         "stop_when": ["auroc < 0.9"]},
        {"name": "S2", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
    ]  # fmt: skip
    schedule = {**ASYNCHRONOUS, "training_stages": stages}
    evolution = {"population_size": 16, "generations": 2}
    config = asynchronous_config(
        hyperband_config=schedule, evolution=evolution, experiment={"name": "r", "seed": seed}
    )
    engine, events = search(config, Workers(1))
    decisions = [d for (_, name), d in engine.history.decisions.items() if name == "S0"]
    verdicts = {v.genome: v for d in decisions for v in d.verdicts}
    results = [e.result for e in events if isinstance(e, StageCompleted) and e.result.stage == "S0"]
    expected: set[str] = set()
    for count in range(1, len(results) + 1):
        sound = [r for r in results[:count] if not isinstance(verdicts[r.genome], Stop)]
        order = promotion_order(config, engine.stages[0], sound, count)
        expected |= set(order[: int(rate * count)])
    promoted = {name for name, verdict in verdicts.items() if isinstance(verdict, Promote)}
    assert promoted == expected
    assert any(isinstance(v, Stop) for d in engine.history.decisions.values() for v in d.verdicts)


class Watching(Workers):
    """Remembers what it was offered."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.offered: list[AnyJob | None] = []

    def run(
        self, tasks: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        def watched() -> Iterator[AnyJob | None]:
            for task in tasks:
                self.offered.append(task)
                yield task

        return super().run(watched(), deadline)


def test_promotions_come_before_newborns() -> None:
    """Li et al. 2020, algorithm 2: a free worker takes a promotion if there is one."""
    workers = Watching(1)
    search(asynchronous_config(), workers)
    stages = [task.stage for task in workers.offered if isinstance(task, Job)]
    assert stages[:2] == ["S0_sanity", "S1_shakeout"]  # S0 lets everyone pass


def test_where_nothing_can_be_trained_yet_no_task_is_offered() -> None:
    """Once the untuned base, which the front is held against, has been measured meanwhile."""
    workers = Watching(3)
    search(asynchronous_config(), workers)
    assert None in workers.offered
    others = [task for task in workers.offered if task is not None and not isinstance(task, Job)]
    assert [isinstance(task, MeasureJob) and task.genome for task in others] == [None]


class Eager(Workers):
    """Trains a task, and writes its checkpoint, when it takes it; the outcome is seen later."""

    def run(
        self, tasks: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        source, done = iter(tasks), list[JobOutcome]()
        while True:
            while len(done) < self._count and (task := next(source, None)) is not None:
                done += self._inner.run([task])
            if not done:
                return
            yield done.pop(0)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_checkpoint_that_a_worker_has_just_written_is_not_pruned(count: int) -> None:
    config = asynchronous_config()
    workers = Eager(count)
    facts = workers.start(config, None, lambda _: None)
    layout = RunLayout(Path("runs") / "eager")
    layout.root.mkdir(parents=True)
    engine = Engine(config, facts, workers, Ledger(), layout)
    engine.search()
    assert engine.front()
    for genome in engine.front():
        verify_folder(layout.checkpoint(genome, "S3_finisher"))


@pytest.mark.parametrize("seed", [7, 32, 33])
def test_children_of_genomes_that_are_stopped_find_their_weights(seed: int) -> None:
    evolution = {
        "population_size": 8,
        "generations": 3,
        "checkpoint_crossover": {"mask": 1.0},
        "resize_adapters": True,
    }
    config = asynchronous_config(evolution=evolution, experiment={"name": "c", "seed": seed})
    workers = Eager(6)
    facts = workers.start(config, None, lambda _: None)
    layout = RunLayout(Path("runs") / "children")
    layout.root.mkdir(parents=True)
    engine = Engine(config, facts, workers, Ledger(), layout)
    engine.search()
    assert len(engine.history.generations) == 3


def test_the_next_generation_begins_before_the_last_one_has_ended() -> None:
    engine, events = search(asynchronous_config(), Workers(3))
    second = next(
        place
        for place, e in enumerate(events)
        if isinstance(e, GenerationStarted) and e.generation == 1
    )
    first_born = {g.id for g in engine.history.generations[0]}
    later = [e for e in events[second:] if isinstance(e, StageCompleted)]
    assert any(e.result.genome in first_born for e in later)


def test_one_seed_one_result_with_one_worker() -> None:
    one, _ = search(asynchronous_config(), Workers(1))
    two, _ = search(asynchronous_config(), Workers(1))
    assert one.history.decisions == two.history.decisions


@pytest.mark.parametrize("cut_after", [1, 5, 9, 16, 22])
def test_a_run_cut_off_anywhere_goes_on(cut_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = api.evolve(asynchronous_config(), "whole")
    genuine, count = InProcessExecutor.run, 0

    def dies(self: Any, tasks: Any, deadline: Any = None) -> Iterator[JobOutcome]:
        nonlocal count
        for outcome in genuine(self, tasks, deadline):
            count += 1
            if count > cut_after:
                raise KeyboardInterrupt
            yield outcome

    with monkeypatch.context() as patch:
        patch.setattr(InProcessExecutor, "run", dies)
        with pytest.raises(Interrupted):
            api.evolve(asynchronous_config(), "cut")
    layout = whole.layout.__class__(Path("runs") / "cut")
    resumed = api.resume(layout)
    events = list(Ledger.read_events(layout.ledger))
    assert isinstance(events[-1], RunCompleted)
    trained = [(e.result.genome, e.result.stage) for e in events if isinstance(e, StageCompleted)]
    assert len(trained) == len(set(trained))  # nothing is trained twice
    assert resumed.report["front"]
    # with one worker the order of completion is the same, and so is all that follows
    assert [m["genome"] for m in resumed.report["front"]] == [
        m["genome"] for m in whole.report["front"]
    ]


def test_two_worker_processes_lose_nothing_to_an_interruption() -> None:
    """Workers that wait for one another's results; on simulated curves they start at once."""
    runtime = {"backend": "simulated", "executor": "local", "workers": 2}
    with pytest.raises(Interrupted):
        api.evolve(asynchronous_config(runtime=runtime), "two", KillAfter(15))
    layout = RunLayout(Path("runs") / "two")
    assert api.resume(layout).report["completed"]
    events = Ledger.read_events(layout.ledger)
    assert {e.worker for e in events if isinstance(e, WorkerStarted)} == {0, 1}
    trained = [(e.result.genome, e.result.stage) for e in events if isinstance(e, StageCompleted)]
    assert len(trained) == len(set(trained)) > 18


def test_a_budget_ends_it_and_more_budget_goes_on() -> None:
    outcome = api.evolve(asynchronous_config(budget={"max_steps": 6000}), "short")
    events = list(Ledger.read_events(outcome.layout.ledger))
    assert any(isinstance(e, BudgetSpent) for e in events)
    spent = sum(e.result.steps for e in events if isinstance(e, StageCompleted))
    assert 0 < spent <= 6000
    config = api.run_config(outcome.layout, ["budget.max_steps=100000"])
    more = api.resume(outcome.layout, config)
    assert more.report["completed"]
    assert more.report["ended_by"] is None


def test_checkpoints_that_a_job_needs_are_there_and_the_others_go() -> None:
    outcome = api.evolve(asynchronous_config(), "kept")
    kept = {path.parent.name for path in outcome.layout.checkpoints.glob("*/*")}
    assert {member["genome"] for member in outcome.report["front"]} <= kept
    assert len(kept) < 18


def test_stages_by_hand_and_pbt_are_refused() -> None:
    with pytest.raises(UsageError, match="stages overlap"):
        api.start_stage(asynchronous_config(), "by-hand")
    with pytest.raises(ConfigError, match="replaces genomes at a stage's end"):
        make_config(hyperband_config=ASYNCHRONOUS, evolution={"pbt_quantile": 0.25})


def test_brackets_have_rungs_of_their_own() -> None:
    config = asynchronous_config(
        hyperband_config={**ASYNCHRONOUS, "brackets": 2},
        evolution={"population_size": 8, "generations": 2},
    )
    engine, _ = search(config, Workers(2))
    genomes = engine.history.genomes
    first = {
        genome: result.stage
        for (genome, _), result in engine.history.results.items()
        if result.first_step == 0
    }
    assert {genomes[g].bracket for g in first} == {0, 1}
    for genome, stage in first.items():
        assert stage == engine.stages[genomes[genome].bracket].name
