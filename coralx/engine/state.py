"""A run as its config and its history have it: the stages of a generation, the front, and the
recipes that it is held against, where they finished."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coralx.config import Config
from coralx.engine.succession import succession_of
from coralx.records.genomes import Genes
from coralx.records.subjects import RECIPES, Baseline, Searched, Subject
from coralx.schedule.adaptive_budgets import with_budgets
from coralx.schedule.stages import Stage, by_length, schedule_of
from coralx.search.experience import with_priors
from coralx.search.pareto import as_minimised, front
from coralx.search.ranking import constraints_of, violations
from coralx.search.recipes import prior_center
from coralx.search.space import Space, space_of
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
        self._front: tuple[list[str], tuple[str, ...]] = [], ()
        """Finishers, and their front."""

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
        finished = self.finished()
        if finished != self._front[0]:  # figures of the last stage never change
            self._front = finished, self.non_dominated(finished, self.last_stage)
        return self._front[1]

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

    # -- what it is held against -------------------------------------------------------------------

    @property
    def space(self) -> Space:
        """The search space, its priors as earlier runs have moved them; without priors in runs of
        earlier versions, which had none."""
        started, space = self.history.started, space_of(self.config)
        if started is not None and started.experience is not None:
            return with_priors(space, started.experience.priors)
        return space if self.history.revision >= 3 else space.without_priors()

    def recipe_of(self, baseline: Baseline) -> Genes | None:
        """What a baseline trains that is a recipe; None for another baseline, and for the centre of
        the priors where there are none, or where it is the default recipe."""
        space = self.space
        if baseline is Baseline.DEFAULT_RECIPE:
            return space.common
        center = prior_center(space) if baseline is Baseline.PRIOR_CENTER else None
        return None if center == space.common else center

    def finishers(self) -> dict[Baseline, Subject]:
        """By recipe that finished the last stage from scratch: the genome that did, or else the
        baseline."""
        found = {recipe: self._finisher(recipe) for recipe in RECIPES}
        return {recipe: subject for recipe, subject in found.items() if subject is not None}

    def _finisher(self, baseline: Baseline) -> Subject | None:
        recipe = self.recipe_of(baseline)
        if recipe is not None and self.space.contains(recipe):
            for name in self.history.born_with(recipe):
                has_finished = self.history.has_finished(name, self.last_stage)
                if has_finished and not self.history.genomes[name].donors:
                    return Searched(name)
        trained = self.history.trained_beside.get((baseline, self.last_stage))
        return baseline if trained is not None and trained.divergence is None else None
