"""Which checkpoints a run still needs: what the engine keeps, and what must therefore be there.

Checkpoints that are damaged or gone, trained again from the last whole one before them.

On a CPU with the same versions the second training ends in the same bytes as the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from coralx.engine.context import RunContext
from coralx.engine.state import RunState
from coralx.errors import DamagedRunError
from coralx.records.events import CheckpointRestored
from coralx.records.jobs import DeriveJob, Job
from coralx.records.results import Derived, StageResult
from coralx.records.subjects import Searched, id_of
from coralx.storage.checkpoints import is_intact
from coralx.storage.layout import RunLayout


def needed_checkpoints(
    state: RunState, under_way: Sequence[Job | DeriveJob] = (), *, is_exhausted: bool = False
) -> set[tuple[str, str]]:
    """Genome and stage of each checkpoint that resume, inheritance or front can need, or what is
    trained beside it, or a job that is `under_way`; `is_exhausted`: nothing trains any more."""
    history = state.history
    living = state.succession.living(history, is_exhausted=is_exhausted) | set(state.front())
    recipes = state.finishers().values()
    living |= {recipe.genome for recipe in recipes if isinstance(recipe, Searched)}
    results = [history.last_result(genome) for genome in living]
    needed = {(result.genome, result.stage) for result in results if result}
    # A parent may have trained on since its child's job was made from an earlier checkpoint.
    sources = [Path(source) for job in under_way for source in job.sources]
    needed |= {(source.parent.name, source.name) for source in sources}
    return needed | {(str(id_of(subject)), stage) for subject, stage in history.trained_beside}


class Restorer:
    """Sees to it that checkpoints which jobs start from are whole."""

    def __init__(self, context: RunContext, layout: RunLayout) -> None:
        self._context = context
        self._layout = layout

    def require(self, checkpoints: Iterable[Path]) -> bool:
        """Train or derive again what is not whole of these, and before it what that in turn starts
        from, which may have been dropped since.

        False where the budget does not suffice. Raises DamagedRunError for a checkpoint that cannot
        be made again.
        """
        # A stack: what a checkpoint was trained from is seen to before it.
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
            elif not self._make_again(job, path):
                return False
        return True

    def _job(self, path: Path) -> Job | DeriveJob:
        """What made the checkpoint."""
        genome = self._context.history.genomes.get(path.parent.name)
        if genome is None:
            # What was trained beside the search is trained again where it is used.
            raise DamagedRunError(f"{path}: missing or damaged", "Restore it from a backup.")
        if genome.derived is not None:
            return self._context.jobs.derive(genome)
        stages = self._context.state.stages_in(genome.generation)
        return self._context.jobs.again(genome, next(s for s in stages if s.name == path.name))

    def _make_again(self, job: Job | DeriveJob, path: Path) -> bool:
        """Whether the budget sufficed."""
        context, allowance = self._context, self._context.allowance
        is_spent = allowance.is_late
        if isinstance(job, Job):
            is_spent = not allowance.affords(job, context.history.trained_steps)
        if is_spent:
            return False
        outcomes = list(context.executor.run([job], allowance.deadline))
        for outcome in outcomes:
            result = outcome.result if isinstance(outcome, Derived) else outcome
            if not isinstance(result, StageResult) or result.checkpoint is None:
                making = "training" if isinstance(job, Job) else "deriving"
                raise DamagedRunError(
                    f"{path}: damaged, and {making} it again failed",
                    f"Restore the checkpoint, or fix what made the {making} fail, and resume.",
                )
            context.ledger.append(CheckpointRestored(job.genome.generation, result))
        return bool(outcomes)


def _names(path: Path) -> tuple[str, str]:
    """Genome and stage of a checkpoint."""
    return path.parent.name, path.name
