"""Checkpoints that are damaged or gone, trained again from the last whole one before them.

On a CPU with the same versions the second training ends in the same bytes as the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coralx.errors import DamagedRunError
from coralx.events import CheckpointRestored
from coralx.execution.executor import Executor
from coralx.records import Job
from coralx.results import StageResult
from coralx.run.allowance import Allowance
from coralx.run.checkpoints import is_intact
from coralx.run.history import History
from coralx.run.jobs import JobMaker
from coralx.run.layout import RunLayout
from coralx.run.ledger import Ledger


class Restorer:
    """Sees to it that checkpoints which jobs start from are whole."""

    def __init__(
        self,
        executor: Executor,
        ledger: Ledger,
        history: History,
        jobs: JobMaker,
        layout: RunLayout,
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._history = history
        self._jobs = jobs
        self._layout = layout

    def require(self, checkpoints: Iterable[Path], allowance: Allowance | None = None) -> bool:
        """Train again what is not whole of these, and before it what that in turn starts from.

        False where the `allowance` (None: no limit) does not suffice. Raises DamagedRunError for a
        checkpoint that cannot be made again.
        """
        waiting = sorted(set(checkpoints), reverse=True)
        while waiting:
            path = waiting[-1]
            if is_intact(self._layout, path.parent.name, path.name):
                waiting.pop()
                continue
            job = self._job(path)
            lost = [s for s in map(Path, job.sources) if not is_intact(self._layout, *_names(s))]
            if lost:
                waiting += lost
            elif not self._train_again(job, path, allowance):
                return False
        return True

    def _job(self, path: Path) -> Job:
        """What made the checkpoint."""
        genome = self._history.genomes.get(path.parent.name)
        if genome is None:  # what was trained beside the search is made again where it is used
            raise DamagedRunError(f"{path}: damaged, and not to be made again")
        stages = self._jobs.timetable.of(genome.generation)
        return self._jobs.again(genome, next(s for s in stages if s.name == path.name))

    def _train_again(self, job: Job, path: Path, allowance: Allowance | None) -> bool:
        """Whether the budget sufficed."""
        if allowance is not None and not allowance.affords(job, self._history.trained_steps):
            return False
        outcomes = list(self._executor.run([job], allowance.deadline if allowance else None))
        for outcome in outcomes:
            if not isinstance(outcome, StageResult) or outcome.checkpoint is None:
                raise DamagedRunError(
                    f"{path}: damaged, and training it again failed",
                    "Put the checkpoint back, or mend what made the training fail, and resume.",
                )
            self._ledger.append(CheckpointRestored(job.genome.generation, outcome))
        return bool(outcomes)


def _names(path: Path) -> tuple[str, str]:
    """Genome and stage of a checkpoint."""
    return path.parent.name, path.name
