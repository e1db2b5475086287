"""The training steps, the same for every backend that trains with torch.

A step reads its figures from the device once, at its end: at every read the host waits for the
device, and then the device for the host. So a step is taken before it is known to be ill; that does
no harm, as the weights of what diverges are thrown away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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

LEAST_SCALE = 1.0
"""The loss scale at which an infinite gradient is a divergence: unscaled, it is infinite, too."""


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
    """The gradient's norm before clipping, in every step but those that were skipped."""
    skipped: list[int] = field(default_factory=list)
    """The steps, from 0, that changed no weight: in fp16, their scaled gradient was infinite."""
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

    def add(self, step: int, figures: StepFigures) -> Divergence | None:
        """Note what a step, from 0, was like; why it is the last one, if it is."""
        if not math.isfinite(figures.loss):
            return Divergence(step + 1, "loss")
        if figures.is_skipped and figures.scale <= LEAST_SCALE:
            return Divergence(step + 1, f"gradient at a loss scale of {figures.scale:g}")
        if figures.is_skipped:
            self.losses.append(figures.loss)
            self.skipped.append(step)
            return None
        if not math.isfinite(figures.norm):
            return Divergence(step + 1, "gradient")
        self.losses.append(figures.loss)
        self.norms.append(figures.norm)
        # A step of finite loss and gradient may overflow all the same.
        return None if math.isfinite(figures.largest) else Divergence(step + 1, "parameter")


@dataclass(frozen=True)
class StepFigures:
    """What a step was like."""

    loss: float
    norm: float
    """The gradient's, unscaled and before clipping."""
    largest: float
    """The largest absolute value of a parameter, afterwards."""
    scale: float
    """What the loss was multiplied by; 1 but in fp16."""
    next_scale: float

    @property
    def is_skipped(self) -> bool:
        """Whether no weight was changed: a scale falls for nothing but an infinite gradient."""
        return self.next_scale < self.scale


class Part(NamedTuple):
    """Rows of a batch that went through the model at once."""

    share: float
    """Of the batch's loss."""
    loss: torch.Tensor
    """Theirs, a scalar on the device."""


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
    scaler: torch.amp.GradScaler
    """Of losses, in fp16; disabled, it does nothing."""
    frozen: Sequence[torch.nn.Module] = ()
    """Parts of the model that are computed without dropout."""
    untuned_loss: float | None = None
    """The untuned base's, which shows when a loss explodes; None: not measured."""

    @property
    def scale_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the scaler."""
        return {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}

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
        for part in self.frozen:
            part.eval()
        began = reported = kept = time.monotonic()
        # A trace that was taken up from a partial checkpoint has steps and seconds already.
        first, before = job.first_step + len(trace.losses), trace.seconds
        for step in range(first, job.last_step):
            beat()
            trace.divergence = self.step(job, step, trace)
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

    def step(self, job: Job, step: int, trace: Trace) -> Divergence | None:
        """One optimizer step. Dropout depends on genome and step alone, so a resumed stage and one
        that was never cut draw the same."""
        rows = self.rows_of(step).tolist()
        parts = self.backward(rows, job.genome.draw("step", step), trace)
        return self.take_step(job, step, rows, parts, trace)

    def take_step(
        self, job: Job, step: int, rows: Sequence[int], parts: Sequence[Part], trace: Trace
    ) -> Divergence | None:
        """Take the step, from 0, whose gradients are there, those of `parts` of the mean loss over
        `rows`; why it is the job's last one, if it is before its time."""
        peak = job.genome.genes.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, peak, job.horizon, self.settings.lr_schedule)
        trace.tokens += sum(len(self.data.ids[row]) for row in rows)
        return trace.add(step, self._update(parts)) or reason_to_stop(
            job, trace.losses, self.untuned_loss
        )

    def _update(self, parts: Sequence[Part]) -> StepFigures:
        """Clip the gradients, let the optimizer step, and read what there is to tell."""
        one = torch.ones((), device=parts[0].loss.device)
        before = self.scaler.scale(one)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        largest = torch.nn.utils.get_total_norm(self.parameters, math.inf)
        after = self.scaler.scale(one)
        *losses, norm_read, largest_read, scale, next_scale = _read(
            [*(part.loss for part in parts), norm, largest, before, after]
        )
        mean = 0.0
        for part, loss in zip(parts, losses, strict=True):
            mean += part.share * loss
        return StepFigures(mean, norm_read, largest_read, scale, next_scale)

    def backward(self, rows: list[int], seed: int, trace: Trace) -> list[Part]:
        """Leave the gradients of the mean loss over `rows`; the parts of which it is the sum. Where
        memory runs out, half as many rows go through the model at once, from now on; their
        gradients add up to those of the whole batch. Raises OutOfMemory where a single row is too
        much."""
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

    def _accumulated(self, rows: list[int], size: int, seed: int) -> list[Part]:
        """The parts of the mean loss over `rows`, `size` of them each, with the gradients of it."""
        self._seed_draws(seed)
        total_weight, parts = self.task.weight(self.data, rows), list[Part]()
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            with self.autocast():
                loss = self.task.loss(self.model, self.data, part)
            # A language model's loss is a mean over tokens, and parts differ in how many they have.
            share = self.task.weight(self.data, part) / total_weight
            self.scaler.scale(share * loss).backward()  # type: ignore[no-untyped-call]
            parts.append(Part(share, loss.detach()))
        return parts

    def _seed_draws(self, seed: int) -> None:
        """As torch.manual_seed, which on a CPU alone takes as long as half a step of a small model:
        it notes where it was called for every kind of device that may come into use later."""
        on_cpu = all(parameter.device.type == "cpu" for parameter in self.parameters)
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)


def _read(figures: Sequence[torch.Tensor]) -> list[float]:
    """Scalars, in one transfer from the device of the first one."""
    device = figures[0].device
    together = torch.stack([figure.detach().float().reshape(()).to(device) for figure in figures])
    numbers: list[float] = together.tolist()
    return numbers
