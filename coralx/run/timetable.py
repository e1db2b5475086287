"""The stages as a generation goes through them."""

from __future__ import annotations

from coralx.config import Config
from coralx.run.history import History
from coralx.schedule.adaptive import with_budgets
from coralx.schedule.stages import Stage, by_length, schedule_of


class Timetable:
    """Stages by generation: as configured, or with the budgets that the ledger records for it.

    Names and places are the same in all generations. Which stages are too short to be scored is
    known once the run has begun.
    """

    def __init__(self, config: Config, history: History) -> None:
        self._configured = schedule_of(config.hyperband_config)
        self.last = self._configured[-1].name
        self._smallest_batch = config.batch_sizes[0]
        self._history = history
        self._known: tuple[Stage, ...] | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a generation whose budgets were not adapted, in order."""
        if self._history.started is None:
            return self._configured
        if self._known is None:
            self._known = self._by_length(self._configured)
        return self._known

    def of(self, generation: int) -> tuple[Stage, ...]:
        """The stages of one generation, in order."""
        budgets = self._history.budgets.get(generation)
        return self._by_length(with_budgets(self._configured, budgets)) if budgets else self.stages

    @property
    def longest_epoch(self) -> int | None:
        """Steps of an epoch for the smallest batch of the space; None where stages decide whatever
        their length: in runs of earlier versions, which scored and cut at every stage."""
        started = self._history.started
        if started is None or started.settings.revision < 2:
            return None
        return started.facts.steps_per_epoch(self._smallest_batch)

    def _by_length(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        longest = self.longest_epoch
        return stages if longest is None else by_length(stages, longest)
