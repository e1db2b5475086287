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

from coralx.config.conditions import Condition
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

Flags = NDArray[np.bool_]


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
    def _constraints(self) -> tuple[Condition, ...]:
        return constraints_of(self._state.config)

    @cached_property
    def _figures(self) -> tuple[str, ...]:
        """The metrics that ranks depend on."""
        named = (*(o.metric for o in self._objectives), *(c.metric for c in self._constraints))
        return tuple(named)

    @cached_property
    def _is_ranked_by_fixed_figures(self) -> bool:
        """Whether ranks can be known before the last outcome: the figure of a genome stays what it
        is. Measurements are made equal to those of others that lie within their spread."""
        if self._stage.is_last or may_replace(self._state, self._stage):
            return False
        return all(metric_entry(name).source != "measurement" for name in self._figures)

    def _by_rank(self, members: Sequence[Genome]) -> set[str]:
        """Those of a bracket whose place is good enough however the missing outcomes turn out."""
        history, stage = self._state.history, self._stage
        trained = [
            history.results[genome.id, stage.name]
            for genome in members
            if (genome.id, stage.name) in history.results
        ]
        results = [result for result in trained if result.divergence is None]
        failed = sum(history.has_failed(g.id) for g in members) - sum(
            history.has_failed(result.genome) for result in trained
        )
        out = failed + len(trained) - len(results)
        certain = self._before_enough(members, results, out) | self._least(members, results)
        return {r.genome for r in results if r.genome in certain and is_clear(stage, r)}

    def _before_enough(
        self, members: Sequence[Genome], results: Sequence[StageResult], out: int
    ) -> set[str]:
        """Who comes before as many others as will be cut: whom a genome dominates never gets its
        place, nor do those who are `out`, since their training failed or diverged."""
        cut = len(members) - self._stage.quota(len(members))
        behind = out + self._beats(results).sum(axis=1)
        return {r.genome for r, count in zip(results, behind, strict=True) if count >= cut}

    def _least(self, members: Sequence[Genome], results: Sequence[StageResult]) -> set[str]:
        """Who has the least of an objective that is known of all before they train the stage, as
        the size of an adapter is: nobody can dominate it, and being an end of the first front it is
        never crowded. So only the other ends may come before it: with two objectives one, else two
        of each."""
        objectives, places = self._objectives, 2 * len(self._objectives)
        if len(objectives) < 2 or self._state.config.evolution.selection != "nsga2":
            return set()
        if self._stage.quota(len(members)) < (2 if len(objectives) == 2 else places):
            return set()
        last = [self._state.history.last_result(genome.id) for genome in members]
        figures = [{} if result is None else result.metrics for result in last]
        least = set()
        for objective in objectives:
            if metric_entry(objective.metric).source == "adapter":
                values = as_minimised(figures, (objective,))[:, 0]
                # Where one is not known the least is NaN, which equals nothing.
                (ends,) = np.nonzero(values == values.min())
                least |= {members[ends[0]].id} if len(ends) == 1 else set()
        missed = violations([result.metrics for result in results], self._constraints)
        fitting = self._complete(results) & (missed == 0)
        return {r.genome for r, fits in zip(results, fitting, strict=True) if fits} & least

    def _beats(self, results: Sequence[StageResult]) -> Flags:
        """Whether genome i comes before j however the others turn out, shape (genomes, genomes)."""
        figures = [result.metrics for result in results]
        points = as_minimised(figures, self._objectives)
        missed = violations(figures, self._constraints)
        beats: Flags = domination(points, missed)
        if len(self._objectives) == 1:  # of equals the order of ids decides
            ids = np.array([result.genome for result in results])
            is_equal = (points == points.T) & (missed == 0) & (missed[:, None] == 0)
            beats |= is_equal & (ids[:, None] < ids)
        beats &= self._complete(results)[:, None]
        return beats

    def _complete(self, results: Sequence[StageResult]) -> Flags:
        """Which have every figure that ranks: one that a genome lacks may turn out to be one that
        nobody has, or only others have."""
        names = self._figures
        return np.array([all(r.metrics.get(n) is not None for n in names) for r in results], bool)
