"""Several genomes trained as one pack: each as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coralx.backends.protocol import Paused, create
from coralx.config import parse_config
from coralx.errors import ConfigError
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.results import Divergence, StageResult
from coralx.training import pack_trial, packed_loop
from coralx.training.pack_trial import PackTrial
from coralx.training.packed_draws import Draws
from coralx.training.packed_loop import Member, PackedLoop
from coralx.training.packed_model import PackedModel

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
    backend.facts = backend.prepare(parse_config(config, "test"), "fp32", 1, ignore)
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


def agree(together: StageResult, alone: StageResult) -> None:
    """Both are of the same training, but for rounding, seconds and paths."""
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


TASKS = ["sequence-classification", "label-tokens", "sft"]


@pytest.fixture(scope="module")
def backends(
    tiny_search: dict[str, Any], causal_config: Callable[[str], dict[str, Any]]
) -> Callable[[str], Any]:
    """The backend of a task, prepared once."""

    @cache
    def of(task: str) -> Any:
        return prepared(tiny_search if task == TASKS[0] else causal_config(task))

    return of


@pytest.fixture
def classifier(backends: Callable[[str], Any]) -> Any:
    """Its base has dropout in its layers and in attention, and its head is trained."""
    return backends(TASKS[0])


@pytest.mark.parametrize("task", TASKS)
def test_a_pack_trains_each_genome_as_if_it_were_alone(
    backends: Callable[[str], Any], task: str, tmp_path: Path
) -> None:
    backend, genomes = backends(task), unlike(task)
    heard: list[Any] = []
    jobs = [job_of(one, tmp_path / "pack") for one in genomes]
    together = list(backend.train_pack(jobs, heard.append))
    for one, found in zip(genomes, together, strict=True):
        agree(found, backend.train(job_of(one, tmp_path / "alone"), ignore))
        weights_agree(tmp_path / "pack" / one.id, tmp_path / "alone" / one.id)
    assert {said.genome for said in heard if said.step == LAST} == {g.id for g in genomes}
    assert list(backend._model.peft_config) == ["default"]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many genomes have gone through the model together, step by step."""
    seen: list[int] = []
    backward = PackedLoop.backward

    def noted(self: PackedLoop, members: Any, rows: Any) -> Any:
        seen.append(len(members))
        return backward(self, members, rows)

    monkeypatch.setattr(PackedLoop, "backward", noted)
    return seen


def test_who_ends_early_leaves_the_pack_and_the_others_as_they_are(
    classifier: Any, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = PackedLoop.backward

    def poisoned(self: PackedLoop, members: Any, rows: Any) -> Any:
        if len(sizes) == 2:
            members[1].trainer.parameters[0].data.fill_(math.nan)
        return backward(self, members, rows)

    monkeypatch.setattr(PackedLoop, "backward", poisoned)
    jobs = [job_of(each, tmp_path) for each in unlike(TASKS[0])]
    first, ill, second = classifier.train_pack(jobs, ignore)
    assert ill.divergence == Divergence(3, "loss")
    assert ill.checkpoint is None
    assert sizes == [3, 3, 3] + [2] * (LAST - 3)
    agree(first, classifier.train(jobs[0], ignore))
    agree(second, classifier.train(jobs[2], ignore))


def test_a_paused_pack_goes_on_alone_or_together(
    classifier: Any, tmp_path: Path, sizes: list[int]
) -> None:
    genomes = unlike(TASKS[0])
    jobs = [job_of(one, tmp_path / "cut") for one in genomes]
    beats = iter(range(100))

    def pause() -> None:
        if next(beats) == 3:
            raise Paused

    with pytest.raises(Paused):
        list(classifier.train_pack(jobs, ignore, pause))
    assert sizes == [3, 3, 3]
    alone = classifier.train(jobs[0], ignore)
    # One that has not begun catches up first.
    late = job_of(genome("g00-08-late", rank=2, target_modules=("value",)), tmp_path / "cut")
    together = list(classifier.train_pack([*jobs[1:], late], ignore))
    assert sizes[3:] == [1] * 3 + [3] * (LAST - 3)
    for job, found in zip([*jobs, late], [alone, *together], strict=True):
        uncut = replace(job, checkpoint=str(tmp_path / "whole" / job.genome.id), partial=None)
        agree(found, classifier.train(uncut, ignore))
        weights_agree(tmp_path / "cut" / job.genome.id, tmp_path / "whole" / job.genome.id)


def test_fewer_train_together_where_memory_runs_out(
    classifier: Any, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = PackedModel.logits

    def limited(self: PackedModel, call: int, batch: Any) -> Any:
        if len(self._names) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, call, batch)

    monkeypatch.setattr(PackedModel, "logits", limited)
    jobs = [job_of(one, tmp_path) for one in unlike(TASKS[0])]
    jobs.append(job_of(genome("g00-03-dddd", rank=4), tmp_path))
    results = list(classifier.train_pack(jobs, ignore))
    assert sizes == [4] + [2, 2] * LAST
    for job, found in zip(jobs, results, strict=True):
        agree(found, classifier.train(job, ignore))


def test_seconds_of_a_pack_add_up(
    classifier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def tick() -> float:
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr(packed_loop, "time", SimpleNamespace(monotonic=tick))
    jobs = [job_of(one, tmp_path) for one in unlike(TASKS[0])]
    results = list(classifier.train_pack(jobs, ignore))
    # Each pass of the loop looks at the clock once.
    assert [result.train_seconds for result in results] == [pytest.approx(LAST / 3)] * 3
    assert all(result.overhead_seconds > 0 for result in results)


def test_failed_evaluation_loses_no_steps(
    classifier: Any, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job_of(one, tmp_path) for one in unlike(TASKS[0])]
    with monkeypatch.context() as patch:
        patch.setattr(classifier._training, "_evaluate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(classifier.train_pack(jobs, ignore))
    first, *_ = classifier.train_pack(jobs, ignore)
    assert len(sizes) == LAST
    assert first.last_step == LAST


def test_what_lies_below_all_adapters_is_computed_once(
    backends: Callable[[str], Any], tmp_path: Path
) -> None:
    backend = backends("sft")
    genomes = [
        genome("g00-00-aaaa", rank=2, target_modules=("layers.1.mlp.down_proj",)),
        genome("g00-01-bbbb", rank=4, dropout=0.2, target_modules=("layers.1.self_attn.q_proj",)),
    ]
    rows: list[int] = []
    layer = backend._model.get_submodule("base_model.model.model.layers.0")
    hook = layer.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    jobs = [job_of(one, tmp_path / "pack") for one in genomes]
    results = list(backend.train_pack(jobs, ignore))
    hook.remove()
    # The first step shows that nothing there differs from genome to genome.
    assert rows[:LAST] == [8] + [4] * (LAST - 1)
    for job, found in zip(jobs, results, strict=True):
        agree(found, backend.train(job, ignore))


def test_a_pack_on_a_base_in_4_bits(
    causal_config: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    config = causal_config("label-tokens")
    config["runtime"] |= {"quantization": "4bit"}
    backend = prepared(config)
    jobs = [job_of(one, tmp_path, last=4) for one in unlike("label-tokens")]
    for job, found in zip(jobs, list(backend.train_pack(jobs, ignore)), strict=True):
        agree(found, backend.train(job, ignore))


def test_a_trial_decides_by_measurement_how_many_train_together(
    classifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decided(wanted: int | None) -> tuple[int | None, str]:
        facts = classifier.decide_pack(classifier.facts, wanted, ignore)
        assert list(classifier._model.peft_config) == ["default"]
        return facts.pack, facts.pack_reason

    assert decided(None) == (1, "8 rows a step are enough for a CPU")
    assert decided(3) == (3, "as configured")
    monkeypatch.setattr(pack_trial, "CPU_ROWS", 8)
    seconds = {"one_step": 1.0, "<lambda>": 2.0}
    monkeypatch.setattr(PackTrial, "_seconds", lambda _, work: (work(), seconds[work.__name__])[1])
    assert decided(None) == (4, "they train 2.00 times as fast as alone")
    seconds["<lambda>"] = 3.6
    assert decided(None) == (1, "4 genomes together train 1.11 times as fast as alone")


def test_a_trial_is_of_genomes_that_are_ever_trained_together(
    classifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies below the layers that a genome adapts is computed apart."""
    ends = Genes(rank=2, layers="top-half", use_dora=True), Genes(rank=4)
    monkeypatch.setattr(pack_trial, "ends_of", lambda *_: ends)
    tried: list[Genes] = []
    members = PackTrial._members

    def noted(self: PackTrial, stack: ExitStack, genes: Sequence[Genes]) -> list[Member]:
        tried.extend(genes)
        return members(self, stack, genes)

    monkeypatch.setattr(PackTrial, "_members", noted)
    assert classifier.decide_pack(classifier.facts, 2, ignore).pack == 2
    assert [(genes.layers, genes.use_dora) for genes in tried] == [("all", False)] * 2


def test_a_base_on_which_genomes_disturb_each_other_trains_them_alone(
    classifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_trial, "CPU_ROWS", 8)
    monkeypatch.setattr(PackTrial, "_fastest", lambda *_: (4, "fast"))
    monkeypatch.setattr(Draws, "_share", lambda _, value, __: value)
    facts = classifier.decide_pack(classifier.facts, None, ignore)
    assert facts.pack == 1
    assert "together" in facts.pack_reason
    with pytest.raises(ConfigError, match=r"runtime\.pack: .* together"):
        classifier.decide_pack(classifier.facts, 2, ignore)
