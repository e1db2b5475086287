"""What a run may still spend: the `budget` section against what the ledger says was spent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from coralx.config.runtime import Budget
from coralx.records import Job


@dataclass(frozen=True)
class Allowance:
    """Totals over all resumes. `spent_seconds` is wall time up to `since` (a monotonic clock);
    `gpus` are those in use, 0 on a machine without."""

    budget: Budget
    spent_seconds: float = 0.0
    spent_gpu_seconds: float = 0.0
    since: float = 0.0
    gpus: int = 0

    def affords(self, job: Job, spent_steps: int) -> bool:
        """Whether time and `max_steps` still allow the job."""
        is_late = self.deadline is not None and time.monotonic() >= self.deadline
        return not is_late and self.affordable([job], spent_steps) == [job]

    def affordable(self, jobs: Sequence[Job], spent_steps: int) -> list[Job]:
        """The first of `jobs`, as many as `max_steps` still allows."""
        if self.budget.max_steps is None:
            return list(jobs)
        fitting, total = [], spent_steps
        for job in jobs:
            total += job.last_step - job.first_step
            if total > self.budget.max_steps:
                break
            fitting.append(job)
        return fitting

    @property
    def deadline(self) -> float | None:
        """The moment of the monotonic clock at which the time is up; None without a limit."""
        limits = []
        if self.budget.max_minutes is not None:
            limits.append(60.0 * self.budget.max_minutes - self.spent_seconds)
        if self.budget.max_gpu_hours is not None and self.gpus:
            left = 3600.0 * self.budget.max_gpu_hours - self.spent_gpu_seconds
            limits.append(left / self.gpus)
        return self.since + min(limits) if limits else None

    @property
    def limits(self) -> str:
        """The limits in words, as keys of the config."""
        given = self.budget.model_dump(exclude_none=True)
        return ", ".join(f"budget.{name} = {value:g}" for name, value in given.items())
