"""A run as its config and its history have it: the stages of a generation, the front, and the
default recipe where it finished."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coralx.config import Config
from coralx.engine.succession import succession_of
from coralx.records.subjects import Baseline, Searched, Subject
from coralx.schedule.adaptive_budgets import with_budgets
from coralx.schedule.stages import Stage, by_length, schedule_of
from coralx.search.pareto import as_minimised, front
from coralx.search.ranking import constraints_of, violations
from coralx.search.recipes import default_recipe
from coralx.search.space import space_of
from coralx.storage.history import History


class RunState:
    """What a config makes of a history. A view: the history may go on, and every answer is of the
    moment. It is cheap to make.

    Stages are by generation: as configured, or with the budgets that the ledger records for it.
    Names and places are the same in all generations. Which stages are too short to be scored is
    known once the run has begun.
    """

    def __init__(self, config: Config, history: History) -> None:
        self.config = config
        self.history = history
        self.succession = succession_of(config.hyperband_config)
        self._configured = schedule_of(config.hyperband_config)
        self.last_stage = self._configured[-1].name
        self._from_beginning: tuple[Stage, ...] | None = None

    # -- the schedule ------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a generation whose budgets were not adapted, in order."""
        if self.history.started is None:
            return self._configured
        if self._from_beginning is None:  # the first event never changes
            self._from_beginning = self._by_length(self._configured)
        return self._from_beginning

    def stages_in(self, generation: int) -> tuple[Stage, ...]:
        """The stages of one generation, in order."""
        budgets = self.history.budgets.get(generation)
        return self._by_length(with_budgets(self._configured, budgets)) if budgets else self.stages

    @property
    def longest_epoch(self) -> int | None:
        """Steps of an epoch for the smallest batch of the space; None where stages decide whatever
        their length: in runs of earlier versions, which scored and cut at every stage."""
        started = self.history.started
        if started is None or started.settings.revision < 2:
            return None
        return started.facts.steps_per_epoch(self.config.batch_sizes[0])

    def _by_length(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        longest = self.longest_epoch
        return stages if longest is None else by_length(stages, longest)

    # -- who is best -------------------------------------------------------------------------------

    def finished(self) -> list[str]:
        """Genomes that completed the last stage and were not taken out, in order of birth."""
        return self.history.finished(self.last_stage)

    def front(self) -> tuple[str, ...]:
        """Non-dominated genomes among those that finished the last stage, the best on the first
        objective first."""
        return self.non_dominated(self.finished(), self.last_stage)

    def non_dominated(self, genomes: Sequence[str], stage: str) -> tuple[str, ...]:
        """Those of `genomes` that no other dominates by the figures of `stage`, the best on the
        first objective first. Only feasible ones if there are any, else those that miss the
        constraints by the least."""
        figures = [self.history.results[genome, stage].metrics for genome in genomes]
        points = as_minimised(figures, self.config.objectives)
        missed = violations(figures, constraints_of(self.config))
        firsts = dict(zip(genomes, np.nan_to_num(points[:, 0], nan=np.inf), strict=True))
        return tuple(
            sorted(front(genomes, points, missed), key=lambda genome: (firsts[genome], genome))
        )

    def default_finisher(self) -> Subject | None:
        """The genome that is the default recipe, if it finished the last stage from scratch; else
        the baseline, if that did."""
        recipe = default_recipe(space_of(self.config))
        for name in self.finished():
            genome = self.history.genomes[name]
            if genome.genes == recipe and not genome.donors:
                return Searched(name)
        trained = self.history.baseline.get(self.last_stage)
        has_finished = trained is not None and trained.divergence is None
        return Baseline.DEFAULT_RECIPE if has_finished else None
