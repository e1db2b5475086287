"""The training steps and the evaluation, the same for every backend that trains with torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.config.schema import Training
from coralx.data.tasks import Encoded, SequenceClassification
from coralx.records import Divergence, Horizon, Job, Progress
from coralx.rng import derive_seed
from coralx.training.backend import Report

EVAL_ROWS = 64
"""Rows scored together; the figures do not depend on it."""

REPORT_SECONDS = 0.5


def learning_rate_at(step: int, peak: float, horizon: Horizon, shape: str) -> float:
    """The learning rate of step number `step` (from 0): a linear warm-up, then `shape`.

    linear and cosine reach zero just after the horizon's last step; constant stays at the peak.
    """
    if step < horizon.warmup_steps:
        return peak * (step + 1) / horizon.warmup_steps
    share = (step - horizon.warmup_steps) / max(1, horizon.total_steps - horizon.warmup_steps)
    match shape:
        case "linear":
            return peak * (1.0 - share)
        case "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * share))
        case _:
            return peak


@dataclass
class Trace:
    """Loss and gradient norm (before clipping) of every step trained, and the seconds they took."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    divergence: Divergence | None = None


@dataclass(frozen=True)
class Trainer:
    """Everything that steps need beside the job: the model with the genome's adapter active, its
    trainable parameters and their optimizer, and the data."""

    model: Any
    parameters: Sequence[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    task: SequenceClassification
    data: Encoded
    rows_of: Callable[[int], NDArray[np.int64]]
    settings: Training
    autocast: Callable[[], AbstractContextManager[Any]]

    def run(self, job: Job, report: Report) -> Trace:
        """Train the job's steps; ends early at the first loss or gradient that is not finite."""
        trace = Trace()
        self.model.train()
        began = reported = time.monotonic()
        for step in range(job.first_step, job.last_step):
            trace.divergence = self._step(job, step, trace)
            now = time.monotonic()
            if trace.divergence is not None:
                break
            if now - reported >= REPORT_SECONDS or step + 1 == job.last_step:
                reported = now
                pace = (now - began) / len(trace.losses)
                loss = trace.losses[-1]
                report(Progress(job.genome.id, job.stage, step + 1, job.last_step, loss, pace))
        trace.seconds = time.monotonic() - began
        return trace

    def _step(self, job: Job, step: int, trace: Trace) -> Divergence | None:
        """One optimizer step. Dropout depends on genome and step alone, so a resumed stage and one
        that was never cut draw the same."""
        torch.manual_seed(derive_seed(job.genome.id, "step", step))
        genes = job.genome.genes
        rate = learning_rate_at(step, genes.learning_rate, job.horizon, self.settings.lr_schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast():
            loss = self.task.loss(self.model, self.data, self.rows_of(step).tolist())
        value = loss.item()
        if not math.isfinite(value):
            return Divergence(step + 1, "loss")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm).item()
        if not math.isfinite(norm):
            return Divergence(step + 1, "gradient")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        trace.losses.append(value)
        trace.norms.append(norm)
        return None


def predict(model: Any, task: SequenceClassification, data: Encoded) -> NDArray[np.float64]:
    """Class probabilities of every row of `data`, shape (rows, classes), in full precision."""
    by_length = np.argsort(data.lengths, kind="stable")
    pieces = []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(by_length), EVAL_ROWS):
            rows = by_length[start : start + EVAL_ROWS].tolist()
            pieces.append(task.probabilities(model, data, rows))
    scores = np.concatenate(pieces)
    ordered = np.empty_like(scores)
    ordered[by_length] = scores
    return ordered
