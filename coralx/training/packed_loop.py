"""The training steps of several genomes together, each with losses and weights as if it were alone.

They read the same rows at the same step. Their forward and backward passes are one; the optimizer,
its rate, clipping, stop rules and the trace are each genome's own, by the code that trains one
alone. Sums are taken in another order, so figures may differ from those alone in the last digits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from coralx.backends.protocol import Beat, Report
from coralx.records.jobs import Job
from coralx.records.results import Progress
from coralx.training.loop import REPORT_SECONDS, Part, Trace, Trainer
from coralx.training.out_of_memory import free, is_shortage
from coralx.training.packed_model import PackedModel


@dataclass(frozen=True)
class Member:
    """One genome of a pack."""

    job: Job
    name: str
    """Its adapter's."""
    trainer: Trainer
    trace: Trace
    keep: Callable[[], None]
    """Keeps what has been trained."""

    @property
    def step(self) -> int:
        """The next one, from 0."""
        return self.job.first_step + len(self.trace.losses)

    @property
    def is_open(self) -> bool:
        return self.trace.divergence is None and self.step < self.job.last_step


class PackedLoop:
    """Trains the members of a pack, whose adapters are in the model."""

    def __init__(self, model: PeftModel, members: Sequence[Member]) -> None:
        self._model = model
        self._members = tuple(members)
        self._packed = PackedModel(model, [member.name for member in members])
        self.at_once = len(members)
        """How many members' rows go through the model together."""

    def run(self, report: Report, beat: Beat, keep_seconds: float) -> None:
        """Train each to its job's end, or to where it ends early: then it leaves the pack. Every
        `keep_seconds`, each keeps what it has trained.

        Members may have trained unlike numbers of steps: who is ahead waits. Where memory runs out,
        half as many go through the model together. Who is left alone is trained alone.
        """
        self.set_trained(trained=True)
        self._run_together(report, beat, keep_seconds)
        self.set_trained(trained=False)
        for member in self._open():
            self._model.set_adapter(member.name)
            trainer, trace = member.trainer, member.trace
            trainer.run(member.job, trace, report, beat, member.keep, keep_seconds)

    def set_trained(self, *, trained: bool) -> None:
        """Have all members' parameters trained, or none: PEFT knows one adapter at a time."""
        for member in self._members:
            for parameter in member.trainer.parameters:
                parameter.requires_grad_(trained)

    def _run_together(self, report: Report, beat: Beat, keep_seconds: float) -> None:
        """Train for as long as several are open, and fit into memory."""
        self._model.train()
        now = reported = kept = time.monotonic()
        while self.at_once > 1 and len(members := self._open()) > 1:
            beat()
            step = min(member.step for member in members)
            due = [member for member in members if member.step == step][: self.at_once]
            if not self.step(due):
                continue
            before, now = now, time.monotonic()
            for member in due:
                member.trace.seconds += (now - before) / len(due)
            if now - reported >= REPORT_SECONDS or step + 1 == due[0].job.last_step:
                reported = now
                _report(due, report, now - before)
            if now - kept >= keep_seconds:
                for member in self._open():
                    member.keep()
                kept = time.monotonic()

    def _open(self) -> list[Member]:
        """Those that have steps left."""
        return [member for member in self._members if member.is_open]

    def step(self, members: Sequence[Member]) -> bool:
        """One step of each, all of the same number. Where memory runs out none is taken, and fewer
        members are trained together from now on."""
        rows = members[0].trainer.rows_of(members[0].step).tolist()
        try:
            losses = self.backward(members, rows)
        except Exception as error:
            if not is_shortage(error):
                raise
            losses = None
        # Out here the exception is gone, and with it what its traceback kept in memory.
        if losses is None:
            for member in members:
                member.trainer.optimizer.zero_grad(set_to_none=True)
            free()
            self.at_once = len(members) // 2
            return False
        for member, loss in zip(members, losses, strict=True):
            member.trace.divergence = member.trainer.take_step(
                member.job, member.step, rows, [Part(1.0, loss)], member.trace
            )
        return True

    def backward(self, members: Sequence[Member], rows: Sequence[int]) -> list[torch.Tensor]:
        """Leave the gradients of each member's mean loss over `rows`; the losses."""
        names = [member.name for member in members]
        seeds = [member.job.genome.draw("step", member.step) for member in members]
        with self._packed.step(names, seeds) as slots:
            with members[0].trainer.autocast():
                losses = [
                    member.trainer.task.loss(slot, member.trainer.data, rows)
                    for member, slot in zip(members, slots, strict=True)
                ]
            scaled = [
                member.trainer.scaler.scale(loss)
                for member, loss in zip(members, losses, strict=True)
            ]
            torch.stack(scaled).sum().backward()  # type: ignore[no-untyped-call]
        return [loss.detach() for loss in losses]


def _report(members: Sequence[Member], report: Report, pace: float) -> None:
    for member in members:
        job, trace = member.job, member.trace
        if trace.divergence is None:
            loss = trace.losses[-1]
            report(Progress(job.genome.id, job.stage, member.step, job.last_step, loss, pace))
