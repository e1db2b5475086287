"""What a run may still spend: the `budget` section against what the ledger says was spent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from coralx.config.runtime import Budget
from coralx.records.jobs import Job


@dataclass(frozen=True)
class Allowance:
    """Limits, and what was spent of them by all processes that had the run before."""

    budget: Budget
    spent_seconds: float = 0.0
    """Wall time up to `since`."""
    spent_gpu_seconds: float = 0.0
    """Those of all GPUs up to `since`."""
    since: float = 0.0
    """When this process began, by the monotonic clock."""
    gpus: int = 0
    """How many are in use; 0 on a machine without."""

    @property
    def counts_steps(self) -> bool:
        """Whether the order of jobs decides which of them are trained at all."""
        return self.budget.max_steps is not None

    @property
    def is_unlimited(self) -> bool:
        """Whether no limit can end the run."""
        return not self.counts_steps and self.deadline is None

    def affords(self, job: Job, spent_steps: int) -> bool:
        """Whether time and `max_steps` still allow the job."""
        return not self.is_late and self.affordable([job], spent_steps) == [job]

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def affordable(self, jobs: Sequence[Job], spent_steps: int) -> list[Job]:
        """The first of `jobs`, as many as `max_steps` still allows."""
        if self.budget.max_steps is None:
            return list(jobs)
        fitting, total = [], spent_steps
        for job in jobs:
            total += job.last_step - job.first_step
            if total > self.budget.max_steps:
                break  # a later, shorter job does not jump the queue
            fitting.append(job)
        return fitting

    @property
    def deadline(self) -> float | None:
        """The moment of the monotonic clock at which the time is up; None without a limit."""
        return self.since + min(self._left.values()) if self._left else None

    @property
    def _left(self) -> dict[str, float]:
        """Seconds from `since` on that each limit of time leaves."""
        left = {}
        if self.budget.max_minutes is not None:
            left["max_minutes"] = 60.0 * self.budget.max_minutes - self.spent_seconds
        if self.budget.max_gpu_hours is not None and self.gpus:
            hours = self.budget.max_gpu_hours
            left["max_gpu_hours"] = (3600.0 * hours - self.spent_gpu_seconds) / self.gpus
        return left

    @property
    def binding(self) -> str:
        """The limit that ends the search now, as a key of the config with its value."""
        if self.is_late or self.budget.max_steps is None:
            name = min(self._left, key=self._left.__getitem__)
        else:
            name = "max_steps"
        return f"budget.{name} = {getattr(self.budget, name):.10g}"


def budget_warnings(budget: Budget, device: str) -> list[str]:
    """Warnings about limits that cannot end a run on such a device (`none`: a simulation)."""
    if budget.max_gpu_hours is None or device.startswith("cuda"):
        return []
    where = "in a simulation" if device == "none" else f"on this machine's {device}"
    return [
        f"budget.max_gpu_hours = {budget.max_gpu_hours:.10g} has no effect {where}: it counts "
        "hours of CUDA GPUs. budget.max_minutes limits the time of any run"
    ]
