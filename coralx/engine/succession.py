"""How generations follow one another: each after the last one's end, or one over the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coralx.config.evolution import Evolution
from coralx.config.hyperband import HyperbandConfig
from coralx.schedule.stages import is_asynchronous
from coralx.storage.history import History


class Succession(Protocol):
    """What depends on whether genomes are promoted together or one by one."""

    overlaps: bool
    """Whether a generation begins while genomes of earlier ones may still train."""

    def donors(self, history: History, genomes: Sequence[str]) -> list[str]:
        """Those of `genomes`, parents of the next generation, whose checkpoints will be there when
        a child begins."""
        ...

    def living(self, history: History, *, is_exhausted: bool) -> set[str]:
        """Genomes that may still train, or be a parent; `is_exhausted`: nothing trains any more."""
        ...

    def is_searched(self, history: History, generation: int, last_stage: str) -> bool:
        """Whether the last verdicts are in of `generation`, the run's last one."""
        ...

    def most_checkpoints(
        self, evolution: Evolution, cohorts: Sequence[Sequence[int]], brackets: int
    ) -> int:
        """The most that lie on disk at once of those that the search needs, if no stop rule takes a
        genome out. `cohorts` count who trains: by generation, then by stage."""
        ...


def succession_of(configured: HyperbandConfig) -> Succession:
    """That of a run with such a schedule."""
    return Overlapping() if is_asynchronous(configured) else InTurn()


class InTurn:
    """Synchronous promotion: a stage is decided as a whole, and a generation begins when the one
    before has ended."""

    overlaps = False

    def donors(self, history: History, genomes: Sequence[str]) -> list[str]:
        """All: nothing of a parent is dropped before its children have begun."""
        return list(genomes)

    def living(self, history: History, *, is_exhausted: bool) -> set[str]:
        """The survivors, or while a generation trains it and its parents."""
        generation = max(history.generations, default=0)
        if generation in history.populations:
            return set(history.populations[generation])
        newborn = {genome.id for genome in history.generations.get(generation, ())}
        return newborn | set(history.populations.get(generation - 1, ()))

    def is_searched(self, history: History, generation: int, last_stage: str) -> bool:
        """Once its last stage is decided."""
        return (generation, last_stage) in history.decisions

    def most_checkpoints(
        self, evolution: Evolution, cohorts: Sequence[Sequence[int]], brackets: int
    ) -> int:
        """Those of the parents, of a generation, and of who has completed its next stage: a stage's
        go once the stage after it is decided. A later generation is like the second."""
        # Population-based training copies the best over the poorest at each stage but the last.
        copies = int(evolution.pbt_quantile * evolution.population_size) * (len(cohorts[0]) - 1)
        at_once = []
        for generation, cohort in enumerate(cohorts[:2]):
            parents = evolution.population_size if generation else 0
            # Of adaptive rungs more may be born than a population.
            born = max(evolution.births(generation), cohort[0])
            at_once.append(parents + born + max(cohort[1:], default=0))
        return max(at_once) + copies


class Overlapping:
    """Asynchronous promotion: a genome goes on by itself, and when a worker would be idle, the next
    generation is bred from what is known by then."""

    overlaps = True

    def donors(self, history: History, genomes: Sequence[str]) -> list[str]:
        """Those whose last checkpoint is kept: others may be left behind before a child begins."""
        return [genome for genome in genomes if history.may_give_weights(genome)]

    def living(self, history: History, *, is_exhausted: bool) -> set[str]:
        """All that may give weights, of whatever generation, and parents whose children wait."""
        if not is_exhausted:
            unborn = [g for g in history.genomes.values() if history.last_result(g.id) is None]
            parents = {parent for genome in unborn for parent in genome.donors}
            return parents | {name for name in history.genomes if history.may_give_weights(name)}
        generation = max(history.generations, default=0)
        if generation not in history.populations:
            return InTurn().living(history, is_exhausted=True)
        # Survivors may have been left behind before, and their checkpoints dropped.
        return {n for n in history.populations[generation] if history.may_give_weights(n)}

    def is_searched(self, history: History, generation: int, last_stage: str) -> bool:
        """Once its survivors are chosen: single verdicts of its last stage come before others'."""
        return generation in history.populations

    def most_checkpoints(
        self, evolution: Evolution, cohorts: Sequence[Sequence[int]], brackets: int
    ) -> int:
        """Those of who waits at each rung, of who is at work, and of the parents."""
        rungs = (len(cohorts[0]) - 1) * brackets
        born = sum(evolution.births(generation) for generation in range(evolution.generations))
        return min(born, (rungs + 2) * evolution.population_size)
