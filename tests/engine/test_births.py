"""Who is born in a search on simulated curves: nobody whose training is known to be needless."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.engine.derivation import least_trained_rank
from coralx.engine.explosions import exploded
from coralx.engine.hypervolume_reference import reference_of
from coralx.engine.population import Population
from coralx.engine.state import RunState
from coralx.records.events import Event, GenerationStarted, RunStarted
from coralx.records.genomes import Genome
from coralx.records.run_facts import Footprint, Settings
from coralx.search.needless import Courses, Needless
from coralx.storage.history import History
from coralx.storage.ledger import Ledger
from tests.support.factories import make_facts, simulated_config
from tests.support.simulated_runs import events_of

CONFIG = simulated_config(
    # more than half of the range explodes
    search_space={"learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}},
    evolution={"population_size": 8, "generations": 4, "derive": {"share": 0.1}},
    objectives=[{"metric": "auroc"}, {"metric": "trainable_parameters"}],
)


SMALL_ALONE = [
    {
        "name": "S0",
        "epoch_budget": 1,
        "data_percentage": 50,
        "survival_rate": 0.5,
        "stop_when": ["trainable_parameters > 200000"],
    },
    {"name": "S1", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("births"))
        return events_of(api.evolve(CONFIG).layout)


def before_generation(number: int, events: Iterable[Event]) -> list[Event]:
    """The events before that generation was born."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, GenerationStarted) and event.generation == number:
            break
        kept.append(event)
    return kept


def born(generation: int, events: Sequence[Event], revision: int) -> tuple[Genome, ...]:
    """Who is born next in a run of that revision."""
    started = events[0]
    assert isinstance(started, RunStarted)
    settings = replace(started.settings, revision=revision)
    state = RunState(CONFIG, History([replace(started, settings=settings), *events[1:]]))
    return Population(state, make_facts(), Ledger()).of(generation)


def recorded(generation: int, events: Iterable[Event]) -> tuple[Genome, ...]:
    return History(events).generations[generation]


def test_no_newborn_repeats_a_training_or_an_explosion(events: list[Event]) -> None:
    for generation in (1, 2, 3):
        history = History(before_generation(generation, events))
        finished = [history.genomes[name] for name in RunState(CONFIG, history).finished()]
        blown_up = [history.genomes[name].genes for name in exploded(history)]
        assert len(blown_up) > 1
        trained = [genome.genes for genome in finished if genome.derived is None]
        known = Needless(Courses(history.trained_genes(), trained, blown_up), cuts=True)
        newborn = recorded(generation, events)
        assert len(newborn) == 8
        for genome in sorted(newborn, key=lambda one: -one.genes.rank):
            assert genome.genes not in known
            known.add(genome.genes)


def test_births_follow_from_what_is_recorded(events: list[Event]) -> None:
    for generation in (1, 3):
        before = before_generation(generation, events)
        assert born(generation, before, revision=4) == recorded(generation, events)


def test_runs_of_earlier_revisions_breed_as_they_did(events: list[Event]) -> None:
    children = born(1, before_generation(1, events), revision=3)
    rates = [0.00495868, 0.00287922, 0.00829487, 0.00180365]  # of revision 3, before REVISION was 4
    rates += [0.0152879, 0.00495868, 0.0152879, 0.00495571]
    assert [child.genes.learning_rate for child in children] == rates


@pytest.mark.parametrize(
    ("sections", "lowest"),
    [
        ({}, 8),
        ({"objectives": [{"metric": "auroc"}]}, 2),  # nobody wants a small one: none are cut
        ({"search_space": {"use_dora": {"choices": [False, True]}}}, 2),
        ({"constraints": ["trainable_parameters <= 200000"]}, 2),
        ({"evolution": {"population_size": 40, "derive": {"operators": ["scale"]}}}, 2),
        # So little may be spent on cuts that there would be none, or fewer than ranks.
        ({"evolution": {"population_size": 40, "derive": {"share": 1e-3}}}, 2),
        # None is cut before all have trained, and a budget may end before that.
        ({"hyperband_config": {"promotion": "asynchronous"}}, 2),
        ({"hyperband_config": {"training_stages": SMALL_ALONE}}, 2),
    ],
)
def test_low_ranks_are_trained_where_no_cut_makes_them(
    sections: dict[str, Any], lowest: int
) -> None:
    config = simulated_config(
        **{
            "evolution": {"population_size": 40, "derive": {"share": 0.1}},
            "objectives": [{"metric": "auroc"}, {"metric": "trainable_parameters"}],
            **sections,
        }
    )
    settings = Settings(1, 1, "none")
    for revision, least in ((4, lowest), (3, 2)):
        settings = replace(settings, revision=revision)
        started = RunStarted(1, "r", "simulation", 7, make_facts(), settings, {}, {}, 0.0)
        started = replace(started, reference=reference_of(config, make_facts()))
        state = RunState(config, History([started]))
        first = Population(state, make_facts(), Ledger()).of(0)
        assert min(genome.genes.rank for genome in first) == least
        assert least_trained_rank(state, make_facts()) == (least if least > 2 else None)


@pytest.mark.parametrize(("free", "lowest"), [(10**9, 8), (10**5, 2)])
def test_low_ranks_are_trained_where_a_device_cannot_hold_high_ones(free: int, lowest: int) -> None:
    config = simulated_config(
        evolution={"population_size": 40, "derive": {"share": 0.1}},
        objectives=[{"metric": "auroc"}, {"metric": "trainable_parameters"}],
    )
    layers = tuple((f"layer.{number}.query", 384, 384) for number in range(6))
    footprint = Footprint(10**6, 10**6, 384, 1536, 6, layers, device_bytes=10**6 + free)
    facts, settings = replace(make_facts(), footprint=footprint), Settings(1, 1, "none", revision=4)
    started = RunStarted(1, "r", "simulation", 7, facts, settings, {}, {}, 0.0)
    started = replace(started, reference=reference_of(config, facts))
    first = Population(RunState(config, History([started])), facts, Ledger()).of(0)
    assert min(genome.genes.rank for genome in first) == lowest
