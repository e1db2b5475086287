"""Runs that differ in nothing but the seed are independent repeats, whoever named the genomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.config import Config, parse_config
from coralx.config.mode import resolve_mode
from coralx.engine.final_evaluation import baseline_of, from_scratch
from coralx.engine.state import RunState
from coralx.records.events import GenerationStarted, RunStarted
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.run_facts import Settings
from coralx.records.serialization import from_json, to_json
from coralx.records.subjects import BASELINE, Baseline
from coralx.rng import derive_seed
from coralx.storage.history import History
from coralx.storage.ledger import Ledger
from tests.support.factories import make_facts


def simulated(seed: int, **sections: Any) -> Config:
    values = {
        "experiment": {"name": f"seed-{seed}", "seed": seed},
        "data": {"steps_per_epoch": 100},
        "evolution": {"population_size": 2, "generations": 1},
        **sections,
    }
    return resolve_mode(parse_config(values, "test"), "simulation", None)


def test_the_searchs_own_genomes_draw_by_their_id_alone() -> None:
    """As in every run before: their ids differ from seed to seed."""
    genome = Genome("g00-00-aaaa", 0, Genes())
    assert genome.draw("adapter") == derive_seed("g00-00-aaaa", "adapter")
    assert genome.draw("step", 3) == derive_seed("g00-00-aaaa", "step", 3)
    assert replace(genome, seed=1).draw("step", 3) != replace(genome, seed=2).draw("step", 3)
    recorded = to_json(genome)
    del recorded["seed"]
    assert from_json(Genome, recorded) == genome


def test_given_genomes_and_the_baseline_draw_by_the_runs_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = Genome("mine", 0, Genes())
    for seed in (1, 2):
        config = simulated(seed, runtime={"baseline": True})
        layout = api.train_population(config, [given]).layout
        history = History(Ledger.read_events(layout.ledger))
        assert history.genomes["mine"] == replace(given, seed=seed)
        assert baseline_of(RunState(config, history), Baseline.DEFAULT_RECIPE).seed == seed
        assert from_scratch(history.genomes["mine"]).seed == seed
    searched = api.evolve(simulated(1), "searched").layout
    (started,) = [
        e for e in Ledger.read_events(searched.ledger) if isinstance(e, GenerationStarted)
    ]
    assert {genome.seed for genome in started.genomes} == {None}


def test_the_baseline_of_an_earlier_version_goes_on_as_it_began() -> None:
    started = RunStarted(1, "old", "simulation", 7, make_facts(), **_UNTOLD)
    recipe = baseline_of(RunState(simulated(7), History([started])), Baseline.DEFAULT_RECIPE)
    assert (recipe.id, recipe.seed) == (BASELINE, None)


_UNTOLD: dict[str, Any] = {
    "settings": Settings(1, 1, "none"),
    "versions": {},
    "hardware": {},
    "startup_seconds": 0.0,
}


def test_one_id_under_two_seeds_has_other_first_weights_and_other_dropout(
    causal_config: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """Rows, batches and everything else are the same: what differs is what the genome draws."""
    pytest.importorskip("torch")
    from coralx.backends.protocol import create

    backend = create("peft")
    backend.prepare(parse_config(causal_config("sft"), "test"), None, 1, lambda _: None)
    mine = Genome("mine", 0, Genes(rank=2, dropout=0.3, batch_size=4, target_modules=("q_proj",)))

    def trained(folder: str, seed: int | None, last: int, start: str | None = None) -> bytes:
        job = Job(
            genome=replace(mine, seed=seed),
            stage="s",
            first_step=last - 1,
            last_step=last,
            horizon=Horizon(10, 0),
            data_fraction=1.0,
            checkpoint=str(tmp_path / folder),
            eval_limit=1,
            resume_from=start,
        )
        backend.train(job, lambda _: None)
        return (tmp_path / folder / "adapter_model.safetensors").read_bytes()

    born = [trained(f"born-{n}", seed, 1) for n, seed in enumerate((1, 1, 2, None))]
    assert born[0] == born[1]
    assert len(set(born)) == 3
    start = str(tmp_path / "born-0")
    on = [trained(f"on-{n}", seed, 2, start) for n, seed in enumerate((1, 1, 2, None))]
    assert on[0] == on[1]
    assert len(set(on)) == 3
