"""Who goes on from a stage whatever the outcomes bring that are still missing.

It is known before the stage is decided, so such a genome may train its next stage at once. The
decision is the same, taken later: these are sufficient conditions, and who meets none of them
waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import metric_entry
from coralx.engine.rung_estimates import figure_of
from coralx.engine.stage_decisions import may_replace
from coralx.engine.state import RunState
from coralx.records.genomes import Genome
from coralx.records.results import StageResult
from coralx.schedule.stages import Stage
from coralx.schedule.stop_rules import is_clear
from coralx.search.pareto import as_minimised, domination
from coralx.search.ranking import constraints_of, objectives_of, violations

Beats = NDArray[np.bool_]


def is_unconditional(state: RunState, stage: Stage, genome: Genome) -> bool:
    """Whether the genome, which has trained the stage, goes on whatever its rank and whoever else
    entered."""
    result = state.history.results.get((genome.id, stage.name))
    if result is None or stage.is_last or may_replace(state, stage):
        return False
    goes_on = genome.is_control or stage.survival_rate == 1
    return goes_on and is_clear(stage, result)


class CertainPromotions:
    """A stage of a generation, of which it is known who `entered`."""

    def __init__(
        self, state: RunState, stage: Stage, generation: int, entered: Sequence[Genome]
    ) -> None:
        self._state, self._stage = state, stage
        self._generation, self._entered = generation, entered

    def so_far(self) -> list[Genome]:
        """Those who are certain to go on, in the order of `entered`."""
        state, stage = self._state, self._stage
        certain = {g.id for g in self._entered if is_unconditional(state, stage, g)}
        if self._is_ranked_by_fixed_figures:
            for bracket in sorted({genome.bracket for genome in self._entered}):
                certain |= self._by_rank([g for g in self._entered if g.bracket == bracket])
        return [genome for genome in self._entered if genome.id in certain]

    @cached_property
    def _objectives(self) -> tuple[Objective, ...]:
        """What the stage ranks by; it follows from earlier generations."""
        figure = figure_of(self._state, self._stage, self._generation)
        return objectives_of(self._state.config, None if figure == "objectives" else figure)

    @cached_property
    def _is_ranked_by_fixed_figures(self) -> bool:
        """Whether ranks can be known before the last outcome: the figure of a genome stays what it
        is. Measurements are made equal to those of others that lie within their spread."""
        if self._stage.is_last or may_replace(self._state, self._stage):
            return False
        constraints = constraints_of(self._state.config)
        names = [*(o.metric for o in self._objectives), *(c.metric for c in constraints)]
        return all(metric_entry(name).source != "measurement" for name in names)

    def _by_rank(self, members: Sequence[Genome]) -> set[str]:
        """Those of a bracket who come before as many others as will be cut: whoever a genome
        dominates, and whose training failed or diverged, can never get its place."""
        history, stage = self._state.history, self._stage
        trained = {
            genome.id: history.results[genome.id, stage.name]
            for genome in members
            if (genome.id, stage.name) in history.results
        }
        failed = sum(g.id not in trained and history.has_failed(g.id) for g in members)
        results = [result for result in trained.values() if result.divergence is None]
        out = failed + len(trained) - len(results)
        cut = len(members) - stage.quota(len(members))
        behind = out + self._beats(results).sum(axis=1)
        return {
            result.genome
            for result, count in zip(results, behind.tolist(), strict=True)
            if count >= cut and is_clear(stage, result)
        }

    def _beats(self, results: Sequence[StageResult]) -> Beats:
        """Whether genome i comes before j however the others turn out, shape (genomes, genomes)."""
        constraints = constraints_of(self._state.config)
        figures = [result.metrics for result in results]
        points = as_minimised(figures, self._objectives)
        missed = violations(figures, constraints)
        beats: Beats = domination(points, missed)
        if len(self._objectives) == 1:  # of equals the order of ids decides
            ids = np.array([result.genome for result in results])
            is_equal = (points == points.T) & (missed == 0) & (missed[:, None] == 0)
            beats |= is_equal & (ids[:, None] < ids)
        # A figure that a genome lacks may turn out to be one that nobody has, or only others have.
        named = [*(o.metric for o in self._objectives), *(c.metric for c in constraints)]
        complete = [all(f.get(name) is not None for name in named) for f in figures]
        beats &= np.array(complete, dtype=bool)[:, None]
        return beats
