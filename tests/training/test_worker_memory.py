"""Hundreds of genomes through one worker: what each took is given back."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.forks import forked_workers
from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "memory"))

from memory import ALLOWED, EVERY, config_for, curve, growth, jobs

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.doctor import check_subject
from coralx.records.jobs import MeasureJob
from coralx.training import tiny_model


@pytest.fixture(autouse=True)
def specimen_written_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """By this process, which has loaded torch."""

    def run(command: Sequence[str], **_: Any) -> SimpleNamespace:
        tiny_model.main(list(command[-1:]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(check_subject, "subprocess", SimpleNamespace(DEVNULL=None, run=run))


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_the_memory_of_a_worker_stays_as_it_is(count: int, tmp_path: Path) -> None:
    with forked_workers():
        sizes = list(curve("tiny", count, tmp_path))
    assert len(sizes) == count
    assert growth(sizes) <= ALLOWED
    assert max(sizes[EVERY:]) <= ALLOWED * sizes[EVERY - 1]


def census(model: Any) -> tuple[int, int, list[str], list[str], list[str]]:
    """What a model that leaks would have more of with every genome: tensors and modules alive
    anywhere, and whatever has the name of an adapter."""
    import torch

    gc.collect()
    alive = [type(found) for found in gc.get_objects()]
    tensors = sum(issubclass(kind, torch.Tensor) for kind in alive)
    modules = sum(issubclass(kind, torch.nn.Module) for kind in alive)
    named = [name for name, _ in model.named_modules() if "genome-" in name]
    parameters = [name for name, _ in model.named_parameters() if "genome-" in name]
    return tensors, modules, list(model.peft_config), named, parameters


def test_nothing_of_a_genome_outlives_its_job(tmp_path: Path) -> None:
    """Not one tensor: of trained, measured and failing jobs, of any shape."""
    backend: Any = create("peft")
    config = parse_config(config_for("tiny", tmp_path).model_dump(mode="json"), "test")
    backend.prepare(config, "fp32", 1, lambda _: None)
    counts = []
    for number, job in enumerate(jobs("tiny", 12, tmp_path)):
        backend.train(job, lambda _: None)
        if number % 3 == 1:
            backend.measure(MeasureJob(job.genome, job.checkpoint))
        if number % 3 == 2:
            with pytest.raises(FileNotFoundError):
                backend.train(replace(job, resume_from=str(tmp_path / "none")), lambda _: None)
            counts.append(census(backend._model))
    assert counts[0][2:] == (["default"], [], [])
    assert counts[1:] == counts[:-1]
