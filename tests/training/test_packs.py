"""Several genomes trained as one pack: each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.results import StageResult
from coralx.training.packed_loop import PackedLoop

HORIZON = Horizon(total_steps=20, warmup_steps=2)
LAST = 8


def genome(name: str, **genes: Any) -> Genome:
    return Genome(name, 0, Genes(**{"batch_size": 4, "learning_rate": 1e-3, **genes}))


def job_of(subject: Genome, folder: Path, last: int = LAST, **changes: Any) -> Job:
    checkpoint = str(folder / subject.id)
    partial = str(folder / f"{subject.id}-partial")
    job = Job(subject, "S0", 0, last, HORIZON, 1.0, checkpoint, partial=partial)
    return replace(job, **changes)


def ignore(_: object) -> None:
    """A listener that does not listen."""


def prepared(config: dict[str, Any]) -> Any:
    backend: Any = create("peft")
    backend.prepare(parse_config(config, "test"), "fp32", 1, ignore)
    return backend


def names_of(task: str) -> tuple[str, str, str]:
    """Kinds of linear modules of the task's base."""
    if task == "sequence-classification":
        return "query", "value", "dense"
    return "q_proj", "v_proj", "down_proj"


def unlike(task: str) -> list[Genome]:
    """Genomes that differ in all that a pack may mix."""
    first, second, third = names_of(task)
    return [
        genome("g00-00-aaaa", rank=2, target_modules=(first, second)),
        genome("g00-01-bbbb", rank=8, alpha_ratio=2.0, dropout=0.2, learning_rate=3e-3),
        genome("g00-02-cccc", rank=4, target_modules=(third,), dropout=0.1, use_rslora=True),
    ]


def same(together: StageResult, alone: StageResult) -> None:
    """Whether the two agree, but for seconds and paths."""
    assert together.genome == alone.genome
    assert together.trained_tokens == alone.trained_tokens
    assert together.curve == pytest.approx(alone.curve, rel=1e-5)
    for name in ("train_loss", "gradient_norm", "eval_loss", "trainable_parameters"):
        assert together.metrics[name] == pytest.approx(alone.metrics[name], rel=1e-4), name


def weights_agree(one: Path, other: Path) -> None:
    for file in ("adapter_model.safetensors", "optimizer.safetensors"):
        found, wanted = load_file(one / file), load_file(other / file)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.fixture(scope="module", params=["sequence-classification", "label-tokens", "sft"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def backend(
    task: str, tiny_search: dict[str, Any], causal_config: Callable[[str], dict[str, Any]]
) -> Any:
    classifies = task == "sequence-classification"
    return prepared(tiny_search if classifies else causal_config(task))


def test_a_pack_trains_each_genome_as_if_it_were_alone(
    backend: Any, task: str, tmp_path: Path
) -> None:
    genomes = unlike(task)
    alone = [backend.train(job_of(one, tmp_path / "alone"), ignore) for one in genomes]
    heard: list[Any] = []
    jobs = [job_of(one, tmp_path / "pack") for one in genomes]
    together = list(backend.train_pack(jobs, heard.append))
    for one, other in zip(together, alone, strict=True):
        same(one, other)
        weights_agree(tmp_path / "pack" / one.genome, tmp_path / "alone" / one.genome)
    assert {said.genome for said in heard if said.step == LAST} == {g.id for g in genomes}
    assert list(backend._model.peft_config) == ["default"]


def test_who_ends_early_leaves_the_others_as_they_are(
    backend: Any, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genomes = unlike(task)[:2]
    wild = genome("g00-09-wild", learning_rate=1e30, target_modules=(names_of(task)[0],))
    jobs = [job_of(one, tmp_path / "pack") for one in (genomes[0], wild, genomes[1])]
    sizes: list[int] = []
    backward = PackedLoop.backward

    def noted(self: PackedLoop, members: Any, rows: Any) -> Any:
        sizes.append(len(members))
        return backward(self, members, rows)

    monkeypatch.setattr(PackedLoop, "backward", noted)
    first, ill, second = backend.train_pack(jobs, ignore)
    assert ill.divergence is not None
    assert ill.checkpoint is None
    assert sizes == [3] * ill.divergence.step + [2] * (LAST - ill.divergence.step)
    for result in (first, second):
        alone = backend.train(
            job_of(wild if False else _by_id(genomes, result.genome), tmp_path), ignore
        )
        same(result, alone)


def _by_id(genomes: list[Genome], wanted: str) -> Genome:
    return next(one for one in genomes if one.id == wanted)
