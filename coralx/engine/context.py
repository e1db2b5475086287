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
    jobs: JobMaker
    executor: Executor
    ledger: Ledger
    """Its events reach the state's history as they are appended."""
    layout: RunLayout | None
    """None where nothing is written: a plan, not a run."""
    allowance: Allowance

    @property
    def history(self) -> History:
        """What has happened so far."""
        return self.state.history
