"""Which jobs are next, and what follows once one is done: the question that the engine's loop asks,
whatever the schedule."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from coralx.engine.asha import Asha
from coralx.engine.context import RunContext
from coralx.engine.derivation import DerivationPhase
from coralx.engine.halving import Halving
from coralx.engine.population import Population
from coralx.records.jobs import DeriveJob, Job


class Scheduler(Protocol):
    """Asked in rounds: `begin`, then `jobs` while `done` is told of each outcome, then `end`.

    Every decision is recorded as it is taken, and a decision that the ledger holds is never taken
    again; so one that is made anew goes on where the ledger ends.
    """

    def begin(self, under_way: Collection[str]) -> list[Path] | None:
        """Take up what is due next: the checkpoints that must be whole for it. None where nothing
        is left to train. `under_way` are the genomes that jobs ahead of the round are about."""
        ...

    def jobs(self, *, ahead: bool) -> Iterator[Job | DeriveJob | None]:
        """The round's jobs, as far as the budget affords them, until all have brought an outcome;
        None while what is left waits for one. With `ahead` also jobs of later rounds that are due
        whatever this one brings; those may be under way at its end."""
        ...

    def done(self, genome: str) -> bool:
        """The genome's job has brought its outcome, and the ledger holds it. Returns whether
        checkpoints may be needless now, before the round has ended."""
        ...

    def end(self) -> bool:
        """No outcome comes any more: decide. False where the budget ended the round; a later
        process goes on with the rest."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether something is left to train or to derive."""
        ...

    @property
    def is_deriving(self) -> bool:
        """Whether adapters may still be derived of what was trained last, before anything else."""
        ...


def scheduler_of(
    context: RunContext, population: Population, derivation: DerivationPhase
) -> Scheduler:
    """That of the run's succession."""
    kind = Asha if context.state.succession.overlaps else Halving
    return kind(context, population, derivation)
