"""`runtime.verify_front` where members of the front were derived: their sources are trained from
scratch, and they are derived again in the same way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.config import Config
from coralx.engine.verification import fresh_steps
from coralx.errors import Interrupted, NotDerivable
from coralx.records.derivations import Derivation
from coralx.records.events import FrontMeasured, GenerationStarted, TrainedBeside
from coralx.records.jobs import DeriveJob, Job
from coralx.records.results import Derived, Divergence, StageResult
from coralx.records.subjects import FRESH
from coralx.storage.derivation_tree import makings, roots
from coralx.storage.history import History
from coralx.storage.layout import find_run
from coralx.storage.ledger import Ledger
from coralx.system.files import verify_folder
from tests.engine.test_verification import config, retrained, shown
from tests.support.derived_runs import derivation
from tests.support.factories import make_genome
from tests.support.simulated_runs import KillAt, events_of_kind

SEARCH = {"population_size": 6, "generations": 3, "resize_adapters": True}
"""With this seed, derivatives of heirs are on the front."""


def derived_run(name: str, *rest: Any, **sections: Any) -> api.Outcome:
    return api.evolve(deriving(**sections), name, *rest)


def deriving(**sections: Any) -> Config:
    seed = {"name": "sim", "seed": 2}
    return config(derive=0.2, **{"experiment": seed, "evolution": SEARCH, **sections})


pytestmark = pytest.mark.usefixtures("here")


def history_of(outcome: api.Outcome) -> History:
    return History(Ledger.read_events(outcome.layout.ledger))


def test_what_a_genome_is_made_of_is_told_once_and_sources_first() -> None:
    history = History(
        [
            GenerationStarted(0, tuple(make_genome(name) for name in "ab")),
            derivation("s", Derivation("scale", ("a",), factor=0.5), 0.5, 1),
            derivation("u", Derivation("soup", ("s", "b", "a"), weights=(0.2, 0.4, 0.4)), 0.5, 1),
            derivation("t", Derivation("truncate", ("u",), rank=1), 0.5, 1),
        ]
    )
    assert makings(history, "t") == ["a", "s", "b", "u", "t"]
    assert roots(history, "t") == ["a", "b"]
    assert (makings(history, "b"), roots(history, "b")) == (["b"], ["b"])


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Job | DeriveJob]:
    """The jobs that the backend is given."""
    train, derive = SimulatedBackend.train, SimulatedBackend.derive
    seen: list[Job | DeriveJob] = []

    def watched(self: SimulatedBackend, job: Job, report: Any, beat: Any) -> StageResult:
        seen.append(job)
        return train(self, job, report, beat)

    def watched_too(self: SimulatedBackend, job: DeriveJob, *rest: Any) -> Derived:
        seen.append(job)
        return derive(self, job, *rest)

    monkeypatch.setattr(SimulatedBackend, "train", watched)
    monkeypatch.setattr(SimulatedBackend, "derive", watched_too)
    return seen


def test_heirs_derivatives_are_derived_again_from_sources_trained_from_scratch(
    given: list[Job | DeriveJob],
) -> None:
    outcome = derived_run("run")
    history, found = history_of(outcome), outcome.report["verification"]
    members = {member["genome"]: member for member in found["members"]}
    derived = {m["genome"] for m in outcome.report["front"] if m["derived"] is not None}
    assert derived & members.keys()
    again = {job.genome.id: job for job in given if job.genome.id.startswith(FRESH)}
    needed = {each for name in members for each in makings(history, name)}
    assert again.keys() == {FRESH + name for name in needed}
    assert retrained(outcome.layout) == [*dict.fromkeys(retrained(outcome.layout))]  # once each
    for name, member in members.items():
        assert member["state"] == "verified"
        assert member["fresh_steps"] == 1000 * len(roots(history, name))
        assert 0.5 < member["fresh"]["test"]["auroc"]["value"] <= 1
        verify_folder(outcome.layout.checkpoint(FRESH + name, "S1"))
        original, job = history.genomes[name], again[FRESH + name]
        if original.derived is None:
            assert isinstance(job, Job)
            assert job.inherit_from is None
            continue
        assert isinstance(job, DeriveJob)
        assert job.genome.derived is not None
        assert job.genome.derived.sources == tuple(FRESH + s for s in original.derived.sources)
        assert job.genome.derived.operator == original.derived.operator
        assert job.sources == tuple(
            str(outcome.layout.checkpoint(FRESH + s, "S1")) for s in original.derived.sources
        )
        assert job.inherited_steps == fresh_steps(history, name)
    measured = {e.measurement.genome for e in events_of_kind(outcome.layout, FrontMeasured)}
    fresh = {name for name in measured if name is not None and name.startswith(FRESH)}
    assert fresh == {FRESH + name for name in members}  # not what they are only made of


def test_what_goes_back_to_genomes_trained_from_scratch_needs_nothing() -> None:
    outcome = derived_run("run", evolution={**SEARCH, "inherit": "off"})
    front = [member["genome"] for member in outcome.report["front"]]
    assert outcome.report["verification"] == {"members": [], "trained_from_scratch": front}
    assert retrained(outcome.layout) == []
    assert "was trained from scratch, or derived from what was." in shown(outcome)


def test_a_killed_verification_goes_on_where_it_was() -> None:
    whole = derived_run("whole")
    count = len(events_of_kind(whole.layout, TrainedBeside))
    with pytest.raises(Interrupted):
        derived_run("cut", KillAt(TrainedBeside, count - 1))
    layout = find_run("cut")
    resumed = api.resume(layout)
    assert resumed.report["verification"] == whole.report["verification"]
    assert sorted(retrained(layout)) == sorted(retrained(whole.layout))
    assert not api.resume(layout).report["not_measured"]


def test_verifying_a_finished_run_gives_the_same() -> None:
    at_once = derived_run("at-once")
    done = derived_run("run", verify=False)
    verified = api.resume(done.layout, deriving())
    assert verified.report["verification"] == at_once.report["verification"]
    before = done.layout.ledger.read_bytes()
    assert api.resume(done.layout).report["verification"] == verified.report["verification"]
    assert done.layout.ledger.read_bytes() == before


def test_where_a_source_diverges_the_report_says_so_and_nothing_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = SimulatedBackend.train
    tried = []

    def diverging(self: SimulatedBackend, job: Job, report: Any, beat: Any) -> StageResult:
        result = train(self, job, report, beat)
        if not job.genome.id.startswith(FRESH):
            return result
        tried.append(job.genome.id)
        return replace(result, metrics={}, checkpoint=None, divergence=Divergence(7, "loss"))

    monkeypatch.setattr(SimulatedBackend, "train", diverging)
    outcome = derived_run("run")
    history = history_of(outcome)
    for member in outcome.report["verification"]["members"]:
        assert (member["state"], member["fresh"]) == ("diverged", None)
        if history.genomes[member["genome"]].derived is not None:
            root = roots(history, member["genome"])[0]
            reason = f"{root} from scratch loss is not finite at step 7"
            assert member["reason"] == reason
    api.resume(outcome.layout)
    assert len(tried) == len(set(tried)) > 0


def test_a_derivation_that_fails_from_scratch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    derive = SimulatedBackend.derive

    def failing(self: SimulatedBackend, job: DeriveJob, *rest: Any) -> Derived:
        if job.genome.id.startswith(FRESH):
            raise NotDerivable("no such rank")
        return derive(self, job, *rest)

    monkeypatch.setattr(SimulatedBackend, "derive", failing)
    outcome = derived_run("run")
    history = history_of(outcome)
    states = {m["genome"]: m["state"] for m in outcome.report["verification"]["members"]}
    assert states
    for name, state in states.items():
        is_derived = history.genomes[name].derived is not None
        assert state == ("failed" if is_derived else "verified"), name
    assert "no such rank" in shown(outcome)
