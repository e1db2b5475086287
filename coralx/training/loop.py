"""The training steps, the same for every backend that trains with torch."""

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

from coralx.backends.protocol import Beat, Report
from coralx.config.runtime import Training
from coralx.records.jobs import Horizon, Job
from coralx.records.results import Divergence, Progress
from coralx.schedule.early_stopping import reason_to_stop
from coralx.tasks.protocol import Encoded, Trainable
from coralx.training.out_of_memory import free, halved, is_shortage, reason_of

REPORT_SECONDS = 0.5
"""Between two reports of progress, at least."""


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
    """What a stage has trained so far."""

    losses: list[float] = field(default_factory=list)
    """Of every step."""
    norms: list[float] = field(default_factory=list)
    """The gradient's norm in every step, before clipping."""
    tokens: int = 0
    """Read by the model while training."""
    seconds: float = 0.0
    """Spent on the steps."""
    micro_batch: int | None = None
    """Rows that go through the model at once; None: a whole batch."""
    peak_bytes: int | None = None
    """The most that a CUDA GPU's allocator held; None elsewhere."""
    divergence: Divergence | None = None
    """Why training ended early; None: it did not."""


@dataclass(frozen=True)
class Trainer:
    """Everything that steps need in addition to the job."""

    model: Any
    """With the genome's adapter active."""
    parameters: Sequence[torch.nn.Parameter]
    """Those that are trained."""
    optimizer: torch.optim.Optimizer
    task: Trainable
    data: Encoded
    rows_of: Callable[[int], NDArray[np.int64]]
    """The rows of a step's batch, by the step's number."""
    settings: Training
    autocast: Callable[[], AbstractContextManager[Any]]
    """In which forward passes run."""
    untuned_loss: float | None = None
    """The untuned base's, which shows when a loss explodes; None: not measured."""

    def run(
        self,
        job: Job,
        trace: Trace,
        report: Report,
        beat: Beat,
        keep: Callable[[], None],
        keep_seconds: float,
    ) -> None:
        """Train those of the job's steps that `trace` does not hold yet; ends early at the first
        loss, gradient or parameter that is not finite, and for what the job's watch looks out for.
        Every `keep_seconds`, `keep` is to keep what has been trained."""
        self.model.train()
        began = reported = kept = time.monotonic()
        # A trace that was taken up from a partial checkpoint has steps and seconds already.
        first, before = job.first_step + len(trace.losses), trace.seconds
        for step in range(first, job.last_step):
            beat()
            trace.divergence = self._step(job, step, trace) or reason_to_stop(
                job, trace.losses, self.untuned_loss
            )
            now = time.monotonic()
            trace.seconds = before + now - began
            if trace.divergence is not None:
                break
            if now - reported >= REPORT_SECONDS or step + 1 == job.last_step:
                reported = now
                pace = (now - began) / (step + 1 - first)
                loss = trace.losses[-1]
                report(Progress(job.genome.id, job.stage, step + 1, job.last_step, loss, pace))
            # After the last step the stage's own checkpoint follows.
            if now - kept >= keep_seconds and step + 1 < job.last_step:
                keep()
                kept = time.monotonic()

    def _step(self, job: Job, step: int, trace: Trace) -> Divergence | None:
        """One optimizer step. Dropout depends on genome and step alone, so a resumed stage and one
        that was never cut draw the same."""
        genes = job.genome.genes
        rate = learning_rate_at(step, genes.learning_rate, job.horizon, self.settings.lr_schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows = self.rows_of(step).tolist()
        loss = self._backward(rows, trace, job.genome.draw("step", step))
        trace.tokens += sum(len(self.data.ids[row]) for row in rows)
        if not math.isfinite(loss):
            return Divergence(step + 1, "loss")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm).item()
        if not math.isfinite(norm):
            return Divergence(step + 1, "gradient")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        trace.losses.append(loss)
        trace.norms.append(norm)
        # A step of finite loss and gradient may overflow all the same.
        if not math.isfinite(torch.nn.utils.get_total_norm(self.parameters, math.inf).item()):
            return Divergence(step + 1, "parameter")
        return None

    def _backward(self, rows: list[int], trace: Trace, seed: int) -> float:
        """Leave the gradients of the mean loss over `rows`, which is returned. Where memory runs
        out, half as many rows go through the model at once, from now on; their gradients add up to
        those of the whole batch. Raises OutOfMemory where a single row is too much."""
        while True:
            size = min(trace.micro_batch or len(rows), len(rows))
            try:
                return self._accumulated(rows, size, seed)
            except Exception as error:
                if not is_shortage(error):
                    raise
                reason = reason_of(error)
            # Out here the exception is gone, and with it what its traceback kept in memory.
            self.optimizer.zero_grad(set_to_none=True)
            free()
            trace.micro_batch = halved(size, reason)

    def _accumulated(self, rows: list[int], size: int, seed: int) -> float:
        """The mean loss over `rows`, `size` of them at a time, with the gradients of it."""
        self._seed_draws(seed)
        total_weight, mean = self.task.weight(self.data, rows), 0.0
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            with self.autocast():
                loss = self.task.loss(self.model, self.data, part)
            # A language model's loss is a mean over tokens, and parts differ in how many they have.
            share = self.task.weight(self.data, part) / total_weight
            mean += share * loss.item()
            if not math.isfinite(mean):
                break
            (share * loss).backward()  # type: ignore[no-untyped-call]
        return mean

    def _seed_draws(self, seed: int) -> None:
        """As torch.manual_seed, which on a CPU alone takes as long as half a step of a small model:
        it notes where it was called for every kind of device that may come into use later."""
        on_cpu = all(parameter.device.type == "cpu" for parameter in self.parameters)
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)
