"""What every step of the engine works with."""

from __future__ import annotations

from dataclasses import dataclass

from coralx.engine.budget import Allowance
from coralx.engine.jobs import JobMaker
from coralx.engine.state import RunState
from coralx.execution.executor import Executor
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger


@dataclass(frozen=True)
class RunContext:
    """A run at work."""

    state: RunState
    """Config and history, and what follows from both."""
    jobs: JobMaker
    """Makes the jobs of the state's genomes."""
    executor: Executor
    """Has workers carry them out."""
    ledger: Ledger
    """Records what came of them; the state's history has each event as soon as it is written."""
    layout: RunLayout | None
    """The run folder; None where nothing is written: a plan, not a run."""
    allowance: Allowance
    """What may still be spent."""

    @property
    def history(self) -> History:
        """What has happened so far."""
        return self.state.history
