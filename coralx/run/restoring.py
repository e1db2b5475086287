"""Checkpoints that are damaged or gone, trained again from the last whole one before them.

On a CPU with the same versions the second training ends in the same bytes as the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coralx.errors import DamagedRunError
from coralx.events import CheckpointRestored
from coralx.execution.executor import Executor
from coralx.results import StageResult
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

    def require(self, checkpoints: Iterable[Path]) -> None:
        """Train again what is not whole of these, and of what they in turn start from.

        Raises DamagedRunError for one that cannot be made again.
        """
        for path in sorted(set(checkpoints)):
            self._require(path.parent.name, path.name)

    def _require(self, genome_id: str, stage_name: str) -> None:
        if is_intact(self._layout, genome_id, stage_name):
            return
        path = self._layout.checkpoint(genome_id, stage_name)
        genome = self._history.genomes.get(genome_id)
        if genome is None:  # what was trained beside the search is trained again where it is used
            raise DamagedRunError(f"{path}: damaged, and not to be made again")
        stages = self._jobs.timetable.of(genome.generation)
        stage = next(stage for stage in stages if stage.name == stage_name)
        job = self._jobs.again(genome, stage)
        self.require(Path(source) for source in job.sources)
        for outcome in self._executor.run([job]):
            if not isinstance(outcome, StageResult) or outcome.checkpoint is None:
                raise DamagedRunError(
                    f"{path}: damaged, and training it again failed",
                    "The error above says why; mend it and resume, or put the checkpoint back.",
                )
            self._ledger.append(CheckpointRestored(genome.generation, outcome))
