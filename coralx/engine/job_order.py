"""Jobs in the order in which workers are done the soonest; no result depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from coralx.records.jobs import Job
from coralx.storage.history import History


def longest_first(jobs: Sequence[Job], history: History) -> list[Job]:
    """The longest first (Graham 1969, "Bounds on multiprocessing timing anomalies"), by what the
    genome's stage before took; of newborns, of which nothing is known, each as long as others are.
    Of equals the order stays."""
    last = {job.genome.id: history.last_result(job.genome.id) for job in jobs}
    pace = {
        name: result.train_seconds / result.steps
        for name, result in last.items()
        if result is not None and result.steps
    }
    usual = fmean(pace.values()) if pace else 0.0

    def seconds(job: Job) -> float:
        return (job.last_step - job.first_step) * pace.get(job.genome.id, usual)

    return sorted(jobs, key=seconds, reverse=True)
