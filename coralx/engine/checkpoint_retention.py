"""Which checkpoints a run still needs: what the engine keeps, and what must therefore be there.

Checkpoints that are damaged or gone, trained again from the last whole one before them.

On a CPU with the same versions the second training ends in the same bytes as the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from coralx.config import Config
from coralx.engine.budget import Allowance
from coralx.engine.jobs import JobMaker
from coralx.engine.state import default_finisher, front_of
from coralx.errors import DamagedRunError
from coralx.execution.executor import Executor
from coralx.records.events import CheckpointRestored
from coralx.records.jobs import Job
from coralx.records.results import StageResult
from coralx.schedule.stages import is_asynchronous
from coralx.storage.checkpoints import is_intact
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger


def needed_checkpoints(
    config: Config, history: History, under_way: Sequence[Job] = (), *, is_exhausted: bool = False
) -> set[tuple[str, str]]:
    """Genome and stage of each checkpoint that resume, inheritance or front can need, or what is
    trained beside it, or a job that is `under_way`; `is_exhausted`: nothing trains any more."""
    last = config.hyperband_config.training_stages[-1].name
    living = _living(config, history, is_exhausted) | set(front_of(config, history, last))
    default = default_finisher(config, history, last)
    living.update([default] if default else [])
    results = [history.last_result(genome) for genome in living]
    needed = {(result.genome, result.stage) for result in results if result}
    sources = [Path(source) for job in under_way for source in job.sources]
    needed |= {(source.parent.name, source.name) for source in sources}
    return needed | history.beside.keys()


def _living(config: Config, history: History, is_exhausted: bool) -> set[str]:
    """Genomes that may still train, or be a parent."""
    if is_asynchronous(config.hyperband_config) and not is_exhausted:
        unborn = [g for g in history.genomes.values() if history.last_result(g.id) is None]
        parents = {parent for genome in unborn for parent in genome.donors}
        return parents | {name for name in history.genomes if history.may_give_weights(name)}
    generation = max(history.generations, default=0)
    if generation in history.populations:
        survivors = set(history.populations[generation])
        if is_asynchronous(config.hyperband_config):  # some may have been left behind before
            survivors = {name for name in survivors if history.may_give_weights(name)}
        return survivors
    newborn = {genome.id for genome in history.generations.get(generation, ())}
    return newborn | set(history.populations.get(generation - 1, ()))


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
