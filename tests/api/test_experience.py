"""Runs that learn from earlier ones: what is read, recorded, reported, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.api.earlier_runs import EarlierRun, read_earlier_runs
from coralx.api.experience import experience_of
from coralx.config import Config, load_config
from coralx.errors import DamagedRunError, Interrupted, UsageError
from coralx.records.events import GenerationStarted, RunStarted
from coralx.records.experience import Experience
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Ledger
from tests.support.command import Said
from tests.support.factories import make_facts, simulated_config
from tests.support.paths import ROOT
from tests.support.simulated_runs import KillAt, comparable, events_of_kind, story
from tests.support.simulations import evolve

GOLDEN = ROOT / "tests" / "golden"
pytestmark = pytest.mark.usefixtures("folder")

SEARCH = {"population_size": 9, "generations": 2}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `first`, from which others may learn."""
    folder = tmp_path_factory.mktemp("experience")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        evolve("first", evolution=SEARCH)
    return folder


@pytest.fixture
def folder(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, without what tests leave."""
    monkeypatch.chdir(shared)
    yield shared
    for run in (shared / "runs").iterdir():
        if run.name != "first":
            shutil.rmtree(run)


def learning(*runs: str, seed: int = 8, **sections: Any) -> Config:
    evolution = {**SEARCH, "learn_from": list(runs)}
    experiment = {"name": "second", "seed": seed}
    return simulated_config(experiment=experiment, evolution=evolution, **sections)


def recorded(layout: RunLayout) -> Experience | None:
    [started] = events_of_kind(layout, RunStarted)
    experience: Experience | None = started.experience
    return experience


# -- what is taken over ----------------------------------------------------------------------------


def test_founders_priors_and_sources_are_recorded_and_reported() -> None:
    outcome = api.evolve(learning("first"))
    experience = recorded(outcome.layout)
    assert experience is not None
    [source] = experience.sources
    assert (source.path, source.run) == ("first", "first")
    assert (source.likeness, source.genomes, source.remark) == ("same base and data", 18, "")
    front = find_run("first")
    earlier = History(Ledger.read_events(front.ledger)).genomes
    born = {
        genome.id: genome for genome in events_of_kind(outcome.layout, GenerationStarted)[0].genomes
    }
    report = outcome.report["experience"]
    assert 1 <= len(report["founders"]) <= 3
    for founder in report["founders"]:
        assert founder["from"]["run"] == "first"
        genome = born[founder["genome"]]
        assert genome.genes == earlier[founder["from"]["genome"]].genes
        assert not genome.donors  # its weights are its own
    prior = report["priors"]["learning_rate"]
    assert 1e-4 < prior["center"] < 5e-3
    assert "learned from first" in prior["source"]
    assert "rank" not in report["priors"]  # the size of adapters is an objective


def test_a_run_that_learns_from_none_has_none() -> None:
    outcome = api.evolve(learning())
    assert recorded(outcome.layout) is None
    assert outcome.report["experience"] is None


def test_size_genes_get_a_prior_where_size_is_no_objective() -> None:
    config = learning("first", objectives=[{"metric": "auroc"}])
    found = experience_of(config, make_facts(), read(config))
    assert found is not None
    given = {prior.gene for prior in found.priors}
    assert "learning_rate" in given


def test_earlier_results_are_read_by_this_runs_objectives() -> None:
    by_skill, by_size = (
        experience_of(config, make_facts(), read(config))
        for config in (
            learning("first", objectives=[{"metric": metric}])
            for metric in ("auroc", "trainable_parameters")
        )
    )
    assert by_skill is not None
    assert by_size is not None
    assert by_skill.founders[0] != by_size.founders[0]


def test_the_stages_of_an_earlier_run_ranked_its_finishers_so() -> None:
    config = learning("first")
    found = experience_of(config, make_facts(), read(config))
    assert found is not None
    for rung in found.rungs:
        assert 0 < rung.share < 1
        assert len(set(rung.finishers)) == len(rung.finishers) >= 2
        assert max(rung.finishers) < rung.ranked
    assert [rung.stage for rung in found.rungs] == ["S1_shakeout", "S2_serious"]


def test_a_run_of_another_kind_is_named_and_left_alone() -> None:
    config = learning(
        "first",
        model={"base": "some/llama", "task": "sft"},
        objectives=[{"metric": "eval_loss"}],
    )
    found = experience_of(config, make_facts(), read(config))
    assert found is not None
    assert found.sources[0].remark == (
        "another kind of run: sequence-classification on a simulated base"
    )
    assert (found.founders, found.priors, found.rungs) == ((), (), ())


@pytest.mark.parametrize("name", ["simulated", "trained"])
def test_runs_of_earlier_versions_can_be_learned_from(name: str) -> None:
    config = load_config(GOLDEN / name / "config.yaml", resolved=True)
    evolution = config.evolution.model_copy(update={"learn_from": (str(GOLDEN / name),)})
    config = config.model_copy(update={"evolution": evolution})
    found = experience_of(config, make_facts(), read(config))
    assert found is not None
    assert found.sources[0].likeness == "same base and data"
    assert found.sources[0].finished > 0
    assert len(found.founders) >= 1


def read(config: Config) -> list[EarlierRun]:
    return read_earlier_runs(config.evolution.learn_from, is_simulated=True)


# -- a resume --------------------------------------------------------------------------------------


def test_a_resume_needs_the_earlier_run_no_more() -> None:
    shutil.copytree("runs/first", "runs/given")
    undisturbed = api.evolve(learning("given"), "undisturbed")
    with pytest.raises(Interrupted):
        api.evolve(learning("given"), "killed", KillAt(GenerationStarted, 2))
    shutil.rmtree("runs/given")
    resumed = api.resume(find_run("killed"))
    assert story(resumed.layout) == story(undisturbed.layout)
    assert comparable(resumed.report) == comparable(undisturbed.report)


def test_an_unfinished_run_can_be_learned_from() -> None:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(evolution=SEARCH), "broken", KillAt(GenerationStarted, 2))
    experience = recorded(api.evolve(learning("broken", "first")).layout)
    assert experience is not None
    assert [source.run for source in experience.sources] == ["broken", "first"]
    assert experience.sources[0].genomes == 9


def test_a_run_that_has_just_begun_teaches_nothing() -> None:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(evolution=SEARCH), "begun", KillAt(GenerationStarted))
    experience = recorded(api.evolve(learning("begun")).layout)
    assert experience is not None
    assert experience.sources[0].remark == "it has trained nothing yet"
    assert not experience.founders


# -- what is refused -------------------------------------------------------------------------------


def test_what_is_no_run_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot learn from 'runs/fist': 'runs/fist' is neither"):
        api.evolve(learning("runs/fist"))
    assert not Path("runs/second").exists()


def test_one_run_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="'first' and 'runs/first' are the same folder"):
        api.evolve(learning("first", "runs/first"))
    with pytest.raises(UsageError, match="'first' is named twice"):
        api.evolve(learning("first", "first"))


def test_a_damaged_run_is_refused() -> None:
    shutil.copytree("runs/first", "runs/damaged")
    ledger = Path("runs/damaged/ledger.jsonl")
    ledger.write_text(ledger.read_text().replace('"seed":7', '"seed":9', 1))
    with pytest.raises(DamagedRunError) as caught:
        api.evolve(learning("damaged"))
    assert "cannot learn from 'damaged'" in caught.value.message
    assert "line 1: damaged, its checksum does not match" in caught.value.message
    assert "leave it out of --learn-from (evolution.learn_from)" in caught.value.hint


def test_a_simulated_run_is_no_evidence_for_a_real_one() -> None:
    with pytest.raises(UsageError, match="it was simulated"):
        read_earlier_runs(["first"], is_simulated=False)
    [trained] = read_earlier_runs([str(GOLDEN / "trained")], is_simulated=False)
    assert trained.layout.root == GOLDEN / "trained"


# -- commands --------------------------------------------------------------------------------------


@pytest.fixture
def written(folder: Path) -> str:
    """The config of a run that has learned from none."""
    text = (
        "experiment: {name: second, seed: 8}\ndata: {steps_per_epoch: 1000}\n"
        "evolution: {population_size: 9, generations: 2}\nruntime: {backend: simulated}\n"
    )
    (folder / "second.yaml").write_text(text, encoding="utf-8")
    return "second.yaml"


def test_several_runs_after_one_flag(written: str, command: Callable[..., Said]) -> None:
    shutil.copytree("runs/first", "runs/other")
    said = command("evolve", written, "--learn-from", "first", "runs/other")
    assert said.code == 0, said.err
    assert "experience: learning from first (same base and data; 18 genomes, " in said.err
    assert "trained anew" in said.err
    assert "experience: learning_rate expected about " in said.out
    experience = recorded(find_run("second"))
    assert experience is not None
    assert [source.path for source in experience.sources] == ["first", "runs/other"]
    # named on the command line once, it stays, as other flags do
    assert command("evolve", written, "--resume", "second").code == 0
    refused = command("evolve", written, "--resume", "second", "--learn-from", "first")
    assert refused.code == 2
    assert "differs from that of run 'second' in evolution.learn_from" in refused.err


def test_simulate_and_validate_say_what_would_be_taken_over(
    folder: Path, written: str, command: Callable[..., Said]
) -> None:
    asked = "--set", "evolution.learn_from=[first]"
    told = json.loads(command("simulate", written, "--json", *asked).out)
    assert told["experience"]["sources"][0]["run"] == "first"
    assert "learning_rate" in told["experience"]["priors"]
    assert "experience: learning from first" in command("simulate", written, *asked).out
    assert f"learns from: {folder / 'runs' / 'first'}" in command("validate", written, *asked).out
    refused = command("validate", written, "--set", "evolution.learn_from=[nowhere]")
    assert refused.code == 2
    assert "cannot learn from 'nowhere'" in refused.err
    assert "A path is taken from the working folder." in refused.err
