"""Population-based training: who gives way to whom, and that copies train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.config import Config, parse_config
from coralx.records.events import GenerationStarted, StageCompleted, StageDecided
from coralx.records.genomes import GENE_NAMES, Genes
from coralx.records.jobs import Job
from coralx.records.results import StageResult
from coralx.records.verdicts import Promote, Replace
from coralx.search.nsga2 import founders
from coralx.search.pbt import EXPLORED, exploit
from coralx.search.space import space_of
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from tests.support.factories import make_genome, simulated_config

PeftBackend = pytest.importorskip("coralx.training.peft").PeftBackend

SPACE = space_of(simulated_config())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.floats(0, 0.5), st.integers(0, 10**6))
def test_the_poorest_quantile_gives_way_to_copies_of_the_best(
    count: int, quantile: float, seed: int
) -> None:
    order = founders(SPACE, count, seed)
    seen = [genome.genes for genome in order]
    copies = exploit(order, seen, SPACE, quantile=quantile, place=2, index=count, seed=seed)
    replaced = int(quantile * len(order))
    assert list(copies) == [genome.id for genome in order[len(order) - replaced :]]
    best = {genome.id: genome for genome in order[:replaced]}
    for copy in copies.values():
        model = best[str(copy.continues)]
        assert copy.parents == (model.id,)
        assert (copy.enters, copy.bracket, copy.inherits) == (2, model.bracket, None)
        kept = [name for name in GENE_NAMES if name not in EXPLORED]
        assert all(getattr(copy.genes, n) == getattr(model.genes, n) for n in kept)
        assert SPACE.contains(copy.genes)
    genes = [*seen, *(copy.genes for copy in copies.values())]
    assert len(set(genes)) == len(genes)
    ids = [genome.id for genome in (*order, *copies.values())]
    assert len(set(ids)) == len(ids)


def test_numbers_are_multiplied_by_a_fifth_more_or_less_within_the_space() -> None:
    genes = Genes(learning_rate=1e-3, dropout=0.1)
    order = [make_genome("a", genes), make_genome("b", replace(genes, rank=8))]
    rates = set()
    for seed in range(40):
        (copy,) = exploit(order, [], SPACE, quantile=0.5, place=1, index=2, seed=seed).values()
        rates.add(round(copy.genes.learning_rate, 9))
        assert round(copy.genes.dropout, 9) in (0.08, 0.12)
    assert rates == {0.8e-3, 1.2e-3}
    at_the_end = [make_genome("a", replace(genes, learning_rate=5e-3)), order[1]]
    for seed in range(10):
        (copy,) = exploit(at_the_end, [], SPACE, quantile=0.5, place=1, index=2, seed=seed).values()
        assert copy.genes.learning_rate in (0.8 * 5e-3, 5e-3)


def pbt_config(**sections: Any) -> Config:
    sections.setdefault("evolution", {"population_size": 8, "generations": 2, "pbt_quantile": 0.25})
    return simulated_config(**sections)


def test_copies_take_their_models_training_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = api.evolve(pbt_config())
    events = list(Ledger.read_events(outcome.layout.ledger))
    history = History(events)
    copies = [g for g in history.genomes.values() if g.continues is not None]
    assert copies
    places = {"S0_sanity": 0, "S1_shakeout": 1, "S2_serious": 2, "S3_finisher": 3}
    for copy in copies:
        model = str(copy.continues)
        names = list(places)
        first = history.results[copy.id, names[copy.enters]]
        copied = history.results[model, names[copy.enters - 1]]
        assert first.first_step == copied.last_step
        assert first.inherited_steps == history.lineage_steps(model, copied.stage)
        own = history.results[copy.id, history.last_result(copy.id).stage]
        assert history.own_steps(copy.id) == own.last_step - first.first_step
        before = history.lineage_steps(model, copied.stage)
        assert history.lineage_steps(copy.id) == history.own_steps(copy.id) + before
    for event in events:
        if isinstance(event, StageDecided):
            replaced = {v.by for v in event.verdicts if isinstance(v, Replace)}
            assert replaced == {genome.id for genome in event.newborn}
            promoted = sum(isinstance(v, Promote) for v in event.verdicts)
            share = 0 if event.stage == "S0_sanity" else 0.25  # three steps tell no one apart
            assert len(replaced) == int(share * (promoted + len(replaced)))
    resumed = api.resume(outcome.layout)
    assert resumed.report["front"] == outcome.report["front"]
    efficiency = outcome.report["efficiency"]
    assert efficiency["naive_steps"] == 2 * 8 * 2000  # copies only take a training up
    trained = sum(e.result.steps for e in events if isinstance(e, StageCompleted))
    assert efficiency["actual_steps"] == pytest.approx(trained, rel=0.02)


def test_full_mode_replaces_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = pbt_config(hyperband_config={"enable_hyperband": False})
    outcome = api.evolve(config)
    events = Ledger.read_events(outcome.layout.ledger)
    births = [e for e in events if isinstance(e, GenerationStarted)]
    assert outcome.report["efficiency"]["total_genomes"] == sum(len(e.genomes) for e in births)


def test_a_copy_starts_from_its_models_weights(
    tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real gradients: what a copy resumes is its model's checkpoint, moments included."""
    monkeypatch.chdir(tmp_path)
    train, jobs = PeftBackend.train, dict[tuple[str, str], Job]()

    def spied(self: Any, job: Job, report: Any, beat: Any) -> StageResult:
        jobs[job.genome.id, job.stage] = job
        return train(self, job, report, beat)

    monkeypatch.setattr(PeftBackend, "train", spied)
    tiny_config["evolution"] |= {"pbt_quantile": 0.5, "population_size": 4, "generations": 1}
    tiny_config["runtime"] |= {"keep_checkpoints": "all", "executor": "in-process"}
    config = parse_config(tiny_config, "tiny.yaml")
    outcome = api.evolve(config, "pbt")
    layout = RunLayout(outcome.layout.root)
    history = History(Ledger.read_events(layout.ledger))
    copies = [g for g in history.genomes.values() if g.continues is not None]
    assert copies
    stages = [stage.name for stage in config.hyperband_config.training_stages]
    for copy in copies:
        result = history.results[copy.id, stages[copy.enters]]
        model = history.results[str(copy.continues), stages[copy.enters - 1]]
        assert result.first_step == model.last_step > 0
        assert result.checkpoint is not None
        job = jobs[copy.id, result.stage]
        assert job.resume_from == model.checkpoint
        twin = jobs.get((str(copy.continues), result.stage))
        if twin is not None:  # from the same weights, moments and rows, but for the learning rate
            assert (twin.resume_from, twin.first_step) == (job.resume_from, job.first_step)
            assert twin.genome.genes.learning_rate != job.genome.genes.learning_rate
