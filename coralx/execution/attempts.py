"""How often each job was tried, and whether another worker is worth a try."""

from __future__ import annotations

from coralx.errors import ConfigError, NotDerivable, OutOfMemory
from coralx.execution.executor import AnyJob, genome_and_stage, reason_of
from coralx.execution.messages import Failed
from coralx.records.jobs import Job

ATTEMPTS = 3
"""Fewer where two workers report the same error: a third would, too."""

Key = tuple[str | None, str]


class Attempts:
    """The attempts at the jobs that are under way."""

    def __init__(self) -> None:
        self._failed: dict[Key, int] = {}
        """How many attempts failed with their worker."""
        self._reported: dict[Key, str] = {}
        """The last error that a worker reported."""

    def begin(self, job: AnyJob) -> None:
        """A job is new, or is to be tried afresh."""
        self._failed[genome_and_stage(job)] = 0
        self._reported.pop(genome_and_stage(job), None)

    def fail(self, job: AnyJob) -> bool:
        """Count an attempt that failed with its worker; whether the job is to be tried again."""
        self._failed[genome_and_stage(job)] += 1
        return self._failed[genome_and_stage(job)] < ATTEMPTS

    def is_first(self, job: AnyJob) -> bool:
        """Whether none has failed."""
        return not self._failed[genome_and_stage(job)]

    def is_final(self, job: AnyJob, failed: Failed) -> bool:
        """Whether another worker would report the same: a genome that does not fit into memory, or
        cannot be derived, or an error that a second worker reports in the same words. Then the
        worker is not to blame. What is wrong with the config ends the run where it is training that
        finds it; it costs but one job where trained adapters are measured or derived from."""
        if failed.error in (OutOfMemory.__name__, NotDerivable.__name__):
            return True
        if failed.error == ConfigError.__name__:
            return not isinstance(job, Job)
        reason = reason_of(failed.error, failed.message)
        before = self._reported.get(genome_and_stage(job))
        self._reported[genome_and_stage(job)] = reason
        return before == reason
