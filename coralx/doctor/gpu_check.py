"""Trains a few real steps, once with each backend: does it work here, and how fast?"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coralx.backends.choice import require_available, with_backend_defaults
from coralx.config import Config, parse_config
from coralx.errors import SetupError, WorkerError
from coralx.execution.executor import Listener
from coralx.execution.local import LocalExecutor
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job, JobFailed
from coralx.records.results import StageResult
from coralx.records.run_facts import Settings
from coralx.system.environment import torch_cuda
from coralx.system.gpus import visible_gpus
from coralx.system.python_process import module_command

BACKENDS = ("peft", "unsloth")
STEPS = 30
EVAL_ROWS = 64
RANKS = (8, 16)
"""Of the two genomes that each backend trains: the first one's time includes compiling."""


@dataclass(frozen=True)
class TrainedGenome:
    """One genome's few steps with one backend."""

    genome: str
    rank: int
    seconds: float
    tokens: int
    """Of the rows that it read, without padding; 0 where the backend does not count them."""
    train_loss: float | None
    eval_loss: float | None
    notes: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.seconds if self.tokens and self.seconds else None


@dataclass(frozen=True)
class BackendCheck:
    """What one backend reached; the first genome's seconds include compiling."""

    backend: str
    device: str
    precision: str
    warnings: tuple[str, ...]
    trained: tuple[TrainedGenome, ...]


def check_backends(
    config: Config, backends: Sequence[str], listener: Listener, *, steps: int = STEPS
) -> list[BackendCheck]:
    """Train the same two genomes on the same data and seeds with each backend, one after another,
    in the precision that the first one chooses.

    Raises ConfigError or SetupError where a backend cannot train the config, WorkerError where
    training fails.
    """
    for backend in backends:
        require_available(config, backend)
    results, settings = list[BackendCheck](), None
    for backend in backends:
        checked, settings = _check(config, backend, settings, listener, steps)
        results.append(checked)
    return results


def _check(
    config: Config, backend: str, settings: Settings | None, listener: Listener, steps: int
) -> tuple[BackendCheck, Settings]:
    runtime = config.runtime.model_copy(update={"backend": backend, "workers": 1})
    config = with_backend_defaults(config.model_copy(update={"runtime": runtime}), backend)
    executor = LocalExecutor(backend)
    try:
        facts = executor.start(config, settings, listener)
        trained = []
        for outcome in executor.run([_job(config, rank, steps) for rank in RANKS]):
            if isinstance(outcome, JobFailed):
                raise WorkerError(f"{backend} could not train: {outcome.reason}")
            if isinstance(outcome, StageResult):
                trained.append(_trained(outcome))
    finally:
        executor.close()
    checked = BackendCheck(backend, facts.device, facts.precision, facts.warnings, tuple(trained))
    return checked, executor.settings


def _job(config: Config, rank: int, steps: int) -> Job:
    genes = replace(Genes(), rank=rank, batch_size=config.training.batch_size, learning_rate=1e-3)
    return Job(
        genome=Genome(f"check-{rank}", 0, genes),
        stage="check",
        first_step=0,
        last_step=steps,
        horizon=Horizon(steps, 0),
        data_fraction=1.0,
        checkpoint=None,
        eval_limit=EVAL_ROWS,
    )


def _trained(result: StageResult) -> TrainedGenome:
    if result.divergence is not None:
        raise WorkerError(
            f"{result.genome}: {result.divergence.reason}, at step {result.divergence.step}"
        )
    return TrainedGenome(
        genome=result.genome,
        rank=int(result.genome.removeprefix("check-")),
        seconds=result.train_seconds,
        tokens=result.trained_tokens,
        train_loss=result.metrics.get("train_loss"),
        eval_loss=result.metrics.get("eval_loss"),
        notes=result.notes,
    )


def largest_difference(checked: Sequence[BackendCheck]) -> float | None:
    """The largest relative difference between the losses that backends reached for one genome."""
    differences = []
    for genomes in zip(*(sorted(c.trained, key=lambda t: t.rank) for c in checked), strict=True):
        for name in ("train_loss", "eval_loss"):
            losses = [getattr(genome, name) for genome in genomes]
            if None not in losses and max(losses) > 0:
                differences.append((max(losses) - min(losses)) / max(losses))
    return max(differences, default=None)


def require_gpu() -> None:
    """Raise SetupError where no GPU can be trained on."""
    if not visible_gpus():
        raise SetupError(
            "no GPU is visible, so there is nothing to check",
            "Run this where nvidia-smi lists a GPU and CUDA_VISIBLE_DEVICES does not hide it.",
        )
    if torch_cuda() is None:
        raise SetupError(
            "torch is a CPU build, so it cannot use the GPU",
            "Install a CUDA build of torch, as https://pytorch.org/get-started shows.",
        )


def specimen_config(folder: Path, *, large: bool) -> Config:
    """A config for a small random Llama and its texts, which are written into `folder`.

    Another process writes them, since that takes torch. Raises WorkerError where it fails.
    """
    done = subprocess.run(
        module_command("coralx.training.tiny_model", str(folder), *(["--large"] if large else [])),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode != 0:
        log = done.stderr.strip()
        raise WorkerError(
            f"the model for the check could not be written to {folder}",
            f"The last line of its output: {log.splitlines()[-1].strip()}" if log else "",
            log,
        )
    return parse_config(
        {
            "model": {"base": str(folder / "model"), "task": "label-tokens", "max_length": 64},
            "data": {
                "train": str(folder / "texts.jsonl"),
                "labels": ["negative", "positive"],
                "prompt": "Text : {text}\nLabel :",
            },
        },
        "specimen",
    )
