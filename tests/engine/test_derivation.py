"""Derived genomes in whole searches on simulated curves: when they are made, and what follows.

Long, as one phase meets everything else that a search does, and each meeting is a case here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.api.simulation import compare_strategies
from coralx.api.trainer import Genome as OwnGenome
from coralx.api.trainer import HyperbandTrainer, LoRAConfig
from coralx.backends.simulated import SimulatedBackend
from coralx.config import Config
from coralx.engine.derivation import derives
from coralx.engine.engine import Engine
from coralx.engine.hypervolume_reference import reference_of
from coralx.engine.state import RunState
from coralx.errors import Interrupted, NotDerivable
from coralx.execution.executor import AnyJob, JobOutcome
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import (
    BudgetSpent,
    CheckpointRestored,
    DerivationFailed,
    GenerationCompleted,
    GenerationStarted,
    GenomeDerived,
    RunCompleted,
    RunStarted,
    StageCompleted,
    StageDecided,
)
from coralx.records.jobs import DeriveJob
from coralx.records.results import Derived
from coralx.schedule.derivation_budget import look_cost, sample_cost
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import FORMAT, Ledger
from tests.support.factories import simulated_config
from tests.support.simulated_runs import KillAt, comparable, events_of, events_of_kind

pytestmark = pytest.mark.usefixtures("here")

ON: dict[str, Any] = {"share": 0.1}
ASYNCHRONOUS = {"promotion": "asynchronous"}


def config(derive: dict[str, Any] = ON, generations: int = 2, **sections: Any) -> Config:
    evolution = {"population_size": 8, "generations": generations, "derive": derive}
    evolution |= sections.pop("evolution", {})
    return simulated_config(evolution=evolution, **sections)


def history_of(layout: RunLayout) -> History:
    return History(Ledger.read_events(layout.ledger))


def decisions(layout: RunLayout) -> list[Any]:
    kinds = (StageDecided, GenerationCompleted, GenomeDerived, DerivationFailed)
    events = [event for event in events_of(layout) if isinstance(event, kinds)]
    return [
        replace(event, result=replace(event.result, checkpoint=None))
        if isinstance(event, GenomeDerived)
        else event
        for event in events
    ]


@pytest.fixture
def whole() -> api.Outcome:
    return api.evolve(config(), "whole")


def test_each_generation_derives_before_its_survivors_are_chosen(whole: api.Outcome) -> None:
    events = events_of(whole.layout)
    history = history_of(whole.layout)
    for generation in (0, 1):
        derived = [
            place
            for place, event in enumerate(events)
            if isinstance(event, GenomeDerived) and event.generation == generation
        ]
        kinds = [
            place
            for place, event in enumerate(events)
            if isinstance(event, StageDecided | GenerationCompleted)
            and event.generation == generation
        ]
        assert derived
        assert kinds[-2] < derived[0] <= derived[-1] < kinds[-1]
    survivors = set(history.populations[1])
    assert survivors & {genome.id for made in history.derived.values() for genome in made}
    front = RunState(config(), history).front()
    assert any(history.genomes[name].derived for name in front)
    assert {member["genome"] for member in whole.report["front"]} == set(front)


def test_the_looks_cost_no_more_than_their_share_of_training(whole: api.Outcome) -> None:
    history = history_of(whole.layout)
    assert history.started is not None
    facts, task = history.started.facts, config().model.task
    limits = {stage.name: stage.eval_limit for stage in config().hyperband_config.training_stages}
    cost = look_cost(task, facts.rows)
    spent = {0: Fraction(0), 1: Fraction(0)}
    for (name, stage), result in history.results.items():
        genome, limit = history.genomes[name], limits[stage]
        if genome.derived is None:
            scored = cost if limit is None else sample_cost(task, facts.rows, limit)
            spent[genome.generation] += result.steps * genome.genes.batch_size + scored
    looks = sum(len(made) for made in history.derived.values())
    assert 0 < looks * cost <= Fraction(1, 10) * (spent[0] + spent[1])
    # one half at most before the last generation, whose adapters have more to give
    assert 0 < len(history.derived[0]) * cost <= Fraction(1, 20) * spent[0]
    fewer = api.evolve(config({"share": 0.02}), "fewer")
    assert 0 < len(events_of_kind(fewer.layout, GenomeDerived)) < looks


def test_the_first_generation_is_the_same_but_for_ranks_that_cuts_make(whole: api.Outcome) -> None:
    without = api.evolve(config({"share": 0}), "without")
    assert not events_of_kind(without.layout, GenomeDerived)

    def founders(layout: RunLayout) -> list[Any]:
        first = events_of_kind(layout, GenerationStarted)[0]
        return [(one.id, replace(one.genes, rank=1)) for one in first.genomes]

    assert founders(without.layout) == founders(whole.layout)


def test_a_population_has_as_many_lineages_as_without_derivations(whole: api.Outcome) -> None:
    history = history_of(whole.layout)
    for population in history.populations.values():
        roots = {history.root(genome) for genome in population}
        assert len(roots) == 8
        assert sum(history.genomes[name].derived is not None for name in population) <= 8
    born = history.generations[1]
    assert all(parent in history.populations[0] for child in born for parent in child.parents)
    genes = [genome.genes for made in history.generations.values() for genome in made]
    assert len(set(genes)) == len(genes)


def test_children_may_inherit_from_a_derived_genome() -> None:
    outcome = api.evolve(config(generations=4), "family")
    history = history_of(outcome.layout)
    heirs = [
        child
        for born in history.generations.values()
        for child in born
        if child.inherits is not None and history.genomes[child.inherits].derived
    ]
    assert heirs
    for child in heirs:
        assert child.inherits is not None
        result = history.last_result(child.id)
        assert result is not None
        assert result.inherited_steps == history.lineage_steps(child.inherits) > 0


@pytest.mark.parametrize("promotion", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_killed_while_it_derives_and_resumed_it_ends_as_one_left_alone(
    promotion: str, count: int
) -> None:
    settings = config(hyperband_config={"promotion": promotion})
    whole = api.evolve(settings, "alone")
    with pytest.raises(Interrupted):
        api.evolve(settings, "cut", KillAt(GenomeDerived, count))
    cut = RunLayout(Path("runs") / "cut")
    resumed = api.resume(cut)
    assert decisions(resumed.layout) == decisions(whole.layout)
    assert comparable(resumed.report)["front"] == comparable(whole.report)["front"]


def test_a_round_of_which_only_a_later_part_was_recorded_is_completed(whole: api.Outcome) -> None:
    """With several workers the second of a round may come first."""
    shutil.copytree(whole.layout.root, Path("runs") / "torn")
    torn = RunLayout(Path("runs") / "torn")
    events = events_of(torn)
    first = next(place for place, event in enumerate(events) if isinstance(event, GenomeDerived))
    torn.ledger.unlink()
    ledger = Ledger(torn.ledger)
    for event in (*events[:first], events[first + 1]):
        ledger.append(event)
    for name in ("report.json", "pareto.csv"):
        (torn.root / name).unlink()
    resumed = api.resume(torn)
    assert {e.genome.id: e.genome.derived for e in events_of_kind(torn, GenomeDerived)} == {
        e.genome.id: e.genome.derived for e in events_of_kind(whole.layout, GenomeDerived)
    }
    assert resumed.report["front"] == whole.report["front"]


@pytest.mark.parametrize(
    ("evolution", "hyperband"),
    [
        ({"pbt_quantile": 0.25, "elite_fraction": 0.25}, {}),
        ({"selection": "nsga3", "resize_adapters": True}, {"adaptive_budgets": True}),
        ({"patience": 2, "checkpoint_crossover": {"mask": 0.3, "merge": 0.3}}, {"brackets": 2}),
    ],
    ids=["copies and elite", "niching and adaptive budgets", "patience, blends and brackets"],
)
def test_whatever_else_a_search_does_it_derives_and_resumes(
    evolution: dict[str, Any], hyperband: dict[str, Any]
) -> None:
    settings = config(generations=3, evolution=evolution, hyperband_config=hyperband)
    whole = api.evolve(settings, "alone")
    generations = {event.generation for event in events_of_kind(whole.layout, GenomeDerived)}
    assert generations == set(history_of(whole.layout).generations)
    with pytest.raises(Interrupted):
        api.evolve(settings, "cut", KillAt(GenomeDerived, 5))
    resumed = api.resume(RunLayout(Path("runs") / "cut"))
    assert decisions(resumed.layout) == decisions(whole.layout)
    ids = list(history_of(whole.layout).genomes)
    assert len(set(ids)) == len(ids)


class Backwards(InProcessExecutor):
    """Brings the outcomes of a round in the opposite order, as several workers may."""

    def run(
        self, jobs: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        known = takewhile(lambda job: job is not None, jobs)
        yield from reversed(list(super().run(known, deadline)))


def test_the_order_of_completion_decides_nothing() -> None:
    derived, survivors = [], []
    for kind in (InProcessExecutor, Backwards):
        settings = config()
        executor = kind("simulated")
        facts = executor.start(settings, None, lambda _: None)
        ledger = Ledger()
        first = RunStarted(FORMAT, "x", "simulation", 7, facts, executor.settings, {}, {}, 0.0)
        ledger.append(replace(first, reference=reference_of(settings, facts)))
        engine = Engine(settings, facts, executor, ledger, None)
        while engine.train_round():
            pass
        made = engine.history.derived
        derived.append({genome.id: genome for one in made.values() for genome in one})
        survivors.append(engine.history.populations)
    assert derived[0] == derived[1] != {}
    assert list(derived[0]) != list(derived[1])
    assert survivors[0] == survivors[1]


def test_a_finished_run_goes_on_with_more_generations() -> None:
    first = api.evolve(config(), "longer")
    known = [event for event in events_of(first.layout) if isinstance(event, GenomeDerived)]
    grown = api.resume(first.layout, config=config(generations=3))
    events = events_of_kind(grown.layout, GenomeDerived)
    assert events[: len(known)] == known
    assert {event.generation for event in events} == {0, 1, 2}
    ids = list(history_of(grown.layout).genomes)
    assert len(set(ids)) == len(ids)


def test_asynchronous_promotion_derives_once_nothing_is_left_to_train() -> None:
    outcome = api.evolve(config(hyperband_config=ASYNCHRONOUS), "asha")
    events = events_of(outcome.layout)
    derived = [place for place, event in enumerate(events) if isinstance(event, GenomeDerived)]
    trained = [place for place, event in enumerate(events) if isinstance(event, StageCompleted)]
    assert derived
    assert trained[-1] < derived[0]
    assert {events[place].generation for place in derived} == {1}
    history = history_of(outcome.layout)
    named = {verdict.genome for one in history.decisions.values() for verdict in one.verdicts}
    assert not named & {genome.id for genome in history.derived[1]}


def test_neither_full_training_nor_a_plan_derives() -> None:
    full = config(hyperband_config={"enable_hyperband": False})
    outcome = api.evolve(full, "full")
    assert not events_of_kind(outcome.layout, GenomeDerived)
    plain, planned = (compare_strategies(config(derive)) for derive in ({"share": 0}, ON))
    assert planned == plain


@pytest.mark.parametrize(
    ("sections", "can"),
    [
        ({}, True),
        ({"objectives": [{"metric": "auroc"}, {"metric": "gradient_norm"}]}, False),
        ({"constraints": ["train_loss <= 0.9"]}, False),
        ({"derive": {"operators": ["truncate"]}, "objectives": [{"metric": "auroc"}]}, False),
        ({"derive": {"operators": ["scale"]}, "objectives": [{"metric": "adapter_bytes"}]}, False),
        ({"derive": {"operators": []}}, False),
        ({"hyperband_config": {"enable_hyperband": False}}, False),
    ],
)
def test_nothing_is_announced_where_nothing_can_be_gained(
    sections: dict[str, Any], can: bool
) -> None:
    """A figure of training is one that derived adapters do not have."""
    assert derives(RunState(config(**sections), History())) == can


def test_a_run_that_was_begun_by_an_earlier_version_derives_nothing(whole: api.Outcome) -> None:
    old = RunLayout(Path("runs") / "old")
    old.root.mkdir(parents=True)
    shutil.copy(whole.layout.config, old.config)
    first = events_of(whole.layout)[0]
    assert isinstance(first, RunStarted)
    Ledger(old.ledger).append(replace(first, settings=replace(first.settings, revision=2)))
    resumed = api.resume(old)
    assert not events_of_kind(resumed.layout, GenomeDerived)
    assert history_of(resumed.layout).populations.keys() == {0, 1}


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.fixture
def no_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    def derive(self: SimulatedBackend, job: DeriveJob, beat: Callable[[], None]) -> Derived:
        if job.genome.derived is not None and job.genome.derived.operator == "compress":
            raise NotDerivable("too dense")
        return plain(self, job, beat)

    plain = SimulatedBackend.derive
    monkeypatch.setattr(SimulatedBackend, "derive", derive)


@pytest.mark.usefixtures("no_compression")
def test_a_derivation_that_fails_costs_the_search_nothing() -> None:
    outcome = api.evolve(config({"share": 0.1, "operators": ["compress", "scale"]}), "failing")
    failed = events_of_kind(outcome.layout, DerivationFailed)
    assert failed
    assert {event.reason for event in failed} == {"too dense"}
    assert len({event.genome.derived for event in failed}) == len(failed)
    assert events_of_kind(outcome.layout, GenomeDerived)
    assert history_of(outcome.layout).populations.keys() == {0, 1}


def test_a_spent_budget_ends_the_derivations_and_a_larger_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    derived = SimulatedBackend.derive

    def slow(self: SimulatedBackend, job: DeriveJob, beat: Callable[[], None]) -> Derived:
        clock[0] += 3600.0
        return derived(self, job, beat)

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(SimulatedBackend, "derive", slow)
    outcome = api.evolve(config(budget={"max_minutes": 90}), "late")
    assert len(events_of_kind(outcome.layout, GenomeDerived)) == 2
    assert events_of_kind(outcome.layout, BudgetSpent)
    assert not history_of(outcome.layout).populations
    resumed = api.resume(outcome.layout, config=config(budget={"max_minutes": 1e6}))
    whole = api.evolve(config(budget={"max_minutes": 1e6}), "in-time")
    assert decisions(resumed.layout) == decisions(whole.layout)


def test_a_lost_checkpoint_of_a_derived_genome_is_derived_again() -> None:
    settings = config()
    layout = api.evolve(settings, "lost").layout
    history = history_of(layout)
    front = RunState(settings, history).front()
    name = next(name for name in front if history.genomes[name].derived)
    folder = layout.checkpoint(name, "S3_finisher")
    held = (folder / "trainer_state.json").read_bytes()
    shutil.rmtree(folder)
    shutil.rmtree(layout.best, ignore_errors=True)
    grown = api.resume(layout, config=config(generations=3))
    restored = [e.result.genome for e in events_of_kind(grown.layout, CheckpointRestored)]
    if name in RunState(settings, history_of(layout)).front():
        assert name in restored
        assert (folder / "trainer_state.json").read_bytes() == held


def test_only_needed_checkpoints_of_derived_genomes_are_kept(whole: api.Outcome) -> None:
    history = history_of(whole.layout)
    kept = {folder.name for folder in whole.layout.checkpoints.iterdir()}
    needed = {*RunState(config(), history).front(), *history.populations[1]}
    made = {genome.id for derived in history.derived.values() for genome in derived}
    assert kept & made == needed & made


# -- other ways to run -----------------------------------------------------------------------------


def test_stages_by_hand_derive_as_a_whole_search_does(whole: api.Outcome) -> None:
    outcome = api.start_stage(config(), "by-hand")
    names = [stage.name for stage in config().hyperband_config.training_stages]
    for stage in [*names[1:], *names]:
        outcome = api.train_stage(outcome.layout, stage)
    assert decisions(outcome.layout) == decisions(whole.layout)


def test_a_stage_by_hand_first_derives_what_a_killed_process_left(whole: api.Outcome) -> None:
    names = [stage.name for stage in config().hyperband_config.training_stages]
    layout = api.start_stage(config(), "by-hand").layout
    for generation in (0, 1):
        for stage in names[1:-1]:
            api.train_stage(layout, stage)
        with pytest.raises(Interrupted):
            api.train_stage(layout, names[-1], view=KillAt(GenomeDerived, 1))
        assert generation not in history_of(layout).populations
        api.train_stage(layout, names[0] if generation == 0 else names[-1])
    assert decisions(layout) == decisions(whole.layout)
    assert events_of_kind(layout, RunCompleted)


def test_own_genomes_keep_their_ids_though_a_derived_one_would_be_called_so(
    whole: api.Outcome,
) -> None:
    taken = history_of(whole.layout).derived[0][0].id
    trainer = HyperbandTrainer(config(generations=1))
    names = [taken, "second", "third", "fourth"]
    genomes = [
        OwnGenome(name, LoRAConfig(r=8, learning_rate=10 ** (-3.2 + 0.1 * place)))
        for place, name in enumerate(names)
    ]
    results = trainer.train_population(genomes)
    assert {result.genome_id for result in results} <= set(names)
    assert trainer.run_folder is not None
    made = events_of_kind(RunLayout(trainer.run_folder), GenomeDerived)
    assert made
    assert taken not in [event.genome.id for event in made]
