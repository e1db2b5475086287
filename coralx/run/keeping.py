"""Which checkpoints a run still needs: what the engine keeps, and what must therefore be there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coralx.config import Config
from coralx.records import Job
from coralx.run.finale import default_finisher, front_of
from coralx.run.history import History
from coralx.schedule.stages import is_asynchronous


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
