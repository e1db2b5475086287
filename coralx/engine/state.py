"""What the ledger's history means for the engine: the stages of a generation, the front, and the
default recipe where it finished."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coralx.config import Config
from coralx.schedule.adaptive_budgets import with_budgets
from coralx.schedule.stages import Stage, by_length, schedule_of
from coralx.search.pareto import as_minimised, front
from coralx.search.ranking import constraints_of, violations
from coralx.search.space import default_recipe, space_of
from coralx.storage.history import BASELINE, History


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


def front_of(config: Config, history: History, last_stage: str) -> tuple[str, ...]:
    """Non-dominated genomes among those that finished the last stage, best skill first."""
    return non_dominated(config, history, history.finished(last_stage), last_stage)


def non_dominated(
    config: Config, history: History, genomes: Sequence[str], stage: str
) -> tuple[str, ...]:
    """Those of `genomes` that no other dominates by the figures of `stage`, the best on the first
    objective first. Only feasible ones if there are any, else those that miss the constraints by
    the least."""
    figures = [history.results[genome, stage].metrics for genome in genomes]
    points = as_minimised(figures, config.objectives)
    missed = violations(figures, constraints_of(config))
    firsts = dict(zip(genomes, np.nan_to_num(points[:, 0], nan=np.inf), strict=True))
    return tuple(
        sorted(front(genomes, points, missed), key=lambda genome: (firsts[genome], genome))
    )


def default_finisher(config: Config, history: History, last_stage: str) -> str | None:
    """The genome that is the default recipe, if it finished the last stage from scratch."""
    recipe = default_recipe(space_of(config))
    for genome in history.finished(last_stage):
        if history.genomes[genome].genes == recipe and not history.genomes[genome].donors:
            return genome
    trained = history.baseline.get(last_stage)
    return BASELINE if trained is not None and trained.divergence is None else None
