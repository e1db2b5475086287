"""The stages as a generation goes through them."""

from __future__ import annotations

from coralx.config import Config
from coralx.run.history import History
from coralx.schedule.adaptive import with_budgets
from coralx.schedule.stages import Stage, schedule_of


class Timetable:
    """Stages by generation: as configured, or with the budgets that the ledger records for it.

    Names and places are the same in all generations.
    """

    def __init__(self, config: Config, history: History) -> None:
        self.stages = schedule_of(config.hyperband_config)
        self.last = self.stages[-1].name
        self._history = history

    def of(self, generation: int) -> tuple[Stage, ...]:
        """The stages of one generation, in order."""
        budgets = self._history.budgets.get(generation)
        return with_budgets(self.stages, budgets) if budgets else self.stages
