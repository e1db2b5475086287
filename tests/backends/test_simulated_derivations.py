"""What the simulated backend makes of derived genomes, and how jobs that derive are carried out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.backends.protocol import no_beat
from coralx.backends.simulated import SimulatedBackend
from coralx.errors import NotDerivable
from coralx.execution.inprocess import InProcessExecutor
from coralx.execution.local import LocalExecutor
from coralx.records.derivations import Derivation
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import DeriveJob, Horizon, Job, JobFailed
from coralx.records.results import Derived, StageResult
from tests.support.factories import simulated_config

GENES = Genes(rank=16, learning_rate=1e-3)


def prepared() -> SimulatedBackend:
    backend = SimulatedBackend()
    backend.prepare(simulated_config(), None, 1, lambda _: None)
    return backend


def finished(backend: SimulatedBackend, name: str, folder: Path | None = None) -> StageResult:
    checkpoint = str(folder / name) if folder else None
    job = Job(Genome(name, 0, GENES), "S3", 0, 2000, Horizon(2000, 100), 1.0, checkpoint)
    return backend.train(job, lambda _: None, no_beat)


def deriving(
    name: str, operator: Any, *sources: str, folder: Path | None = None, **how: Any
) -> Any:
    genome = Genome(name, 1, GENES, derived=Derivation(operator, sources, **how))
    paths = tuple(str(folder / source) for source in sources) if folder else ()
    return DeriveJob(genome, "S3", paths, 2000, str(folder / name) if folder else None)


def figures(derived: Derived) -> dict[str, float]:
    return {key: value for key, value in derived.result.metrics.items() if value is not None}


@pytest.mark.parametrize("in_memory", [False, True])
def test_cutting_makes_adapters_smaller_and_costs_more_the_further_it_goes(
    in_memory: bool, tmp_path: Path
) -> None:
    folder = None if in_memory else tmp_path
    backend = prepared()
    source = finished(backend, "one", folder)
    cuts = [
        backend.derive(deriving(f"cut-{rank}", "truncate", "one", folder=folder, rank=rank))
        for rank in (8, 4, 2, 1)
    ]
    assert [cut.genome.genes.rank for cut in cuts] == [8, 4, 2, 1]
    assert [cut.result.rank for cut in cuts] == [8, 4, 2, 1]
    full = source.metrics["trainable_parameters"]
    assert [cut.result.metrics["trainable_parameters"] / full for cut in cuts] == [
        1 / 2,
        1 / 4,
        1 / 8,
        1 / 16,
    ]
    skills = [source.metrics["auroc"], *(figures(cut)["auroc"] for cut in cuts)]
    # Nothing is lost above the rank that the update needs; below it more with every halving.
    assert abs(skills[0] - skills[1]) < 0.01
    assert 0.004 < skills[0] - skills[-1] < 0.1
    assert skills[-2] - skills[-1] > 0.002
    assert "train_loss" not in cuts[0].result.metrics
    assert (cuts[0].result.steps, cuts[0].result.inherited_steps) == (0, 2000)


def test_skill_and_calibration_have_their_best_factors_near_one() -> None:
    backend = prepared()
    for name in ("one", "two", "three"):
        finished(backend, name)
        factors = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
        scaled = [
            figures(backend.derive(deriving(f"{name}-{f}", "scale", name, factor=f)))
            for f in factors
        ]
        skills = [one["auroc"] for one in scaled]
        errors = [one["calibration"] for one in scaled]
        assert 0.5 <= factors[skills.index(max(skills))] <= 1.25
        assert 0.5 <= factors[errors.index(min(errors))] <= 1.25
        assert skills[-1] < max(skills) - 0.02
        assert {one["trainable_parameters"] for one in scaled} == {
            scaled[0]["trainable_parameters"]
        }


def test_a_soup_is_a_little_better_than_its_sources_in_the_mean() -> None:
    backend = prepared()
    names = ("one", "two", "three")
    mean = math.fsum(finished(backend, name).metrics["auroc"] or 0.0 for name in names) / 3
    soup = backend.derive(deriving("soup", "soup", *names, rank=16, weights=(1 / 3,) * 3))
    assert mean - 0.005 < figures(soup)["auroc"] < mean + 0.03
    assert soup.genome.genes.rank == 16
    thin = backend.derive(deriving("thin", "soup", *names, rank=1, weights=(1 / 3,) * 3))
    assert figures(thin)["auroc"] < figures(soup)["auroc"]


def test_compositions_start_from_derived_adapters(tmp_path: Path) -> None:
    backend = prepared()
    source = finished(backend, "one", tmp_path)
    dropped = backend.derive(deriving("dropped", "drop", "one", folder=tmp_path, count=3))
    assert dropped.genome.derived is not None
    assert len(set(dropped.genome.derived.groups)) == 3
    named = deriving("dropped", "drop", "one", folder=tmp_path, count=3)
    assert backend.derive(replace(named, genome=dropped.genome)) == dropped
    share = backend.derive(deriving("part", "compress", "dropped", folder=tmp_path, share=0.25))
    sizes = [
        one["trainable_parameters"]
        for one in (source.metrics, dropped.result.metrics, share.result.metrics)
    ]
    assert sizes[0] > sizes[1]
    assert sizes[2] == pytest.approx(sizes[1] / 4, abs=1)
    with pytest.raises(NotDerivable, match=r"10 of 10 module groups cannot be dropped"):
        backend.derive(deriving("gone", "drop", "dropped", folder=tmp_path, count=10))


def test_equal_jobs_bring_equal_results_whoever_trained_the_sources(tmp_path: Path) -> None:
    first, other = prepared(), prepared()
    finished(first, "one", tmp_path)
    job = deriving("cut", "compress", "one", folder=tmp_path, share=0.1)
    assert first.derive(job) == other.derive(job)


def test_executors_derive_and_report_what_cannot_be_derived_without_a_second_try(
    tmp_path: Path,
) -> None:
    finished(prepared(), "one", tmp_path)
    jobs = [
        deriving("cut", "truncate", "one", folder=tmp_path, rank=2),
        deriving("gone", "drop", "one", folder=tmp_path, count=13),
    ]
    outcomes = []
    for executor in (InProcessExecutor("simulated"), LocalExecutor("simulated")):
        said: list[Any] = []
        try:
            executor.start(simulated_config(runtime={"workers": 1}), None, said.append)
            outcomes.append(list(executor.run(jobs)))
        finally:
            executor.close()
        assert not [line for line in said if "trying again" in str(line)]
    here, there = outcomes
    assert here == there
    assert isinstance(here[0], Derived)
    assert here[0].genome.id == "cut"
    assert here[1] == JobFailed("gone", "S3", "13 of 13 module groups cannot be dropped")
