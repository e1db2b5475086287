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

from coralx.config.runtime import Training
from coralx.data.tasks import Encoded, Scores, Task
from coralx.records import Horizon, Job
from coralx.results import Divergence, Progress
from coralx.rng import derive_seed
from coralx.training.backend import Report
from coralx.training.watch import ending

EVAL_ROWS = 64
"""Rows scored together at most; the figures do not depend on it."""

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
    """Loss and gradient norm (before clipping) of every step trained, the tokens read, and the
    seconds it took."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    divergence: Divergence | None = None


@dataclass(frozen=True)
class Trainer:
    """Everything that steps need beside the job: the model with the genome's adapter active, its
    trainable parameters and their optimizer, and the data."""

    model: Any
    parameters: Sequence[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    task: Task
    data: Encoded
    rows_of: Callable[[int], NDArray[np.int64]]
    settings: Training
    autocast: Callable[[], AbstractContextManager[Any]]
    untuned_loss: float | None = None

    def run(self, job: Job, report: Report) -> Trace:
        """Train the job's steps; ends early at the first loss or gradient that is not finite, and
        for what the job's watch looks out for."""
        trace = Trace()
        self.model.train()
        began = reported = time.monotonic()
        for step in range(job.first_step, job.last_step):
            trace.divergence = self._step(job, step, trace) or ending(
                job, trace.losses, self.untuned_loss
            )
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
        rows = self.rows_of(step).tolist()
        trace.tokens += sum(len(self.data.ids[row]) for row in rows)
        with self.autocast():
            loss = self.task.loss(self.model, self.data, rows)
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


def predict(
    model: Any, task: Task, data: Encoded, autocast: Callable[[], AbstractContextManager[Any]]
) -> Scores:
    """The task's scores of every row of `data`, shape (rows, columns)."""
    by_length = np.argsort(data.lengths, kind="stable")
    batches = _batches(by_length.tolist(), data.lengths, task.eval_tokens)
    model.eval()
    with torch.no_grad(), autocast():
        scores = np.concatenate([task.scores(model, data, rows) for rows in batches])
    ordered = np.empty_like(scores)
    ordered[by_length] = scores
    return ordered


def mean_loss(
    model: Any,
    task: Task,
    data: Encoded,
    rows: Sequence[int],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> float:
    """The loss that training would find in `rows`, the mean over them, by the model as it is."""
    by_length = sorted(rows, key=lambda row: len(data.ids[row]))
    batches = _batches(by_length, data.lengths, task.eval_tokens)
    model.eval()
    with torch.no_grad(), autocast():
        losses = [task.loss(model, data, batch).item() * len(batch) for batch in batches]
    return sum(losses) / len(rows)


def _batches(rows: list[int], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Rows, shortest first, in batches that hold so many tokens, padding included."""
    batches: list[list[int]] = []
    for row in rows:
        last = batches[-1] if batches else []
        is_full = len(last) >= EVAL_ROWS or (len(last) + 1) * lengths[row] > most_tokens
        if not last or is_full:
            batches.append([row])
        else:
            last.append(row)
    return batches
