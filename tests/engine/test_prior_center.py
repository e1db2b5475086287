"""The centre of the priors as a baseline: when it is trained beside the search, and how it is
shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.config import Config
from coralx.engine.baselines import missing_recipes
from coralx.engine.population import Population
from coralx.engine.state import RunState
from coralx.records.events import RunStarted, TrainedBeside
from coralx.records.genomes import Genes
from coralx.records.run_facts import Settings
from coralx.records.subjects import PRIOR, Baseline, Searched, title_of
from coralx.search.recipes import prior_center
from coralx.search.space import space_of
from coralx.storage.history import History
from coralx.storage.ledger import Ledger
from tests.support.factories import make_facts, simulated_config

BASELINES = (Baseline.DEFAULT_RECIPE, Baseline.PRIOR_CENTER)


def config(**sections: Any) -> Config:
    return simulated_config(
        **{
            "runtime": {"backend": "simulated", "baseline": True},
            "evolution": {"population_size": 4, "generations": 1},
            "search_space": {},
            **sections,
        }
    )


def state_of(config: Config, revision: int) -> RunState:
    settings = Settings(1, 1, "none", revision)
    started = RunStarted(1, "r", "simulation", 7, make_facts(), settings, {}, {}, 0.0)
    return RunState(config, History([started]))


def test_the_centre_that_the_search_cut_is_trained_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # so small a rate that neither recipe survives among the founders
    rate = {"low": 1e-5, "high": 5e-3, "log": True, "prior": 5e-5, "spread": 0.3}
    outcome = api.evolve(config(search_space={"learning_rate": rate}))
    history = History(Ledger.read_events(outcome.layout.ledger))
    trained = [s for s, _ in history.trained_beside if s in BASELINES]
    assert set(trained) == set(BASELINES)
    assert trained.count(Baseline.PRIOR_CENTER) == 4  # stage by stage
    state = RunState(config(search_space={"learning_rate": rate}), history)
    assert state.finishers() == {recipe: recipe for recipe in BASELINES}
    assert missing_recipes(state) == []
    shown = outcome.report["baselines"]
    assert (
        shown["prior_center"]["auroc"]
        == history.measurements[Baseline.PRIOR_CENTER].test["auroc"].value
    )
    # a resume has nothing left to do, and says the same
    assert api.resume(outcome.layout).report["baselines"] == shown


def test_a_centre_that_finished_the_search_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rate = {"low": 1e-5, "high": 5e-3, "log": True, "prior": 1.2e-3}  # the simulated curves' best
    searched = config(search_space={"learning_rate": rate})
    outcome = api.evolve(searched)
    events = Ledger.read_events(outcome.layout.ledger)
    history = History(events)
    state = RunState(searched, history)
    centre = state.finishers()[Baseline.PRIOR_CENTER]
    assert isinstance(centre, Searched)
    assert history.genomes[centre.genome].genes == prior_center(space_of(searched))
    assert not any(isinstance(e, TrainedBeside) and e.result.genome == PRIOR for e in events)
    assert outcome.report["baselines"]["prior_center"] is not None


@pytest.mark.parametrize(
    "rate",
    [
        {"low": 1e-5, "high": 5e-3, "log": True},
        {"low": 1e-5, "high": 5e-3, "log": True, "prior": 2e-4},  # the common default itself
    ],
)
def test_without_a_centre_of_its_own_there_is_no_such_baseline(rate: dict[str, Any]) -> None:
    state = state_of(config(search_space={"learning_rate": rate}), 3)
    assert state.recipe_of(Baseline.PRIOR_CENTER) is None
    assert missing_recipes(state) == [Baseline.DEFAULT_RECIPE]


def test_runs_of_earlier_versions_have_no_priors() -> None:
    earlier, now = state_of(config(), 2), state_of(config(), 3)
    assert list(now.space.priors) == ["learning_rate"]
    assert earlier.space == space_of(config()).without_priors()
    assert missing_recipes(earlier) == [Baseline.DEFAULT_RECIPE]
    assert missing_recipes(now) == list(BASELINES)
    born = [Population(state, make_facts(), Ledger()).of(0) for state in (earlier, now)]
    centre = prior_center(space_of(config()))
    assert [centre in [g.genes for g in genomes] for genomes in born] == [False, True]
    assert all(genomes[0].genes == Genes() for genomes in born)


def test_it_is_called_what_it_is() -> None:
    assert title_of(PRIOR) == "prior's centre"
