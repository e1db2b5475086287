"""How well the stages of a run ranked what came later, as `report.json` has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coralx.config.evolution import Objective
from coralx.engine.rung_estimates import known_of
from coralx.engine.state import RunState
from coralx.records.results import Metrics
from coralx.records.rung_reliability import RungReliability
from coralx.schedule.stages import Stage
from coralx.search.pareto import as_minimised, ranks
from coralx.search.ranking import constraints_of, violations

FEWEST_PAIRS = 5
"""Genomes with early and final figures: with fewer nothing is said of a stage."""

MOST_BEST = 5
"""How many of the best at the end are looked for in a stage's better half, at most."""


def rungs_of(state: RunState) -> list[dict[str, Any]]:
    """For each stage but the last how well it ranked what came later, and the share that it let go
    on, generation by generation. A stage that is not scored ranks nothing and is left out."""
    generations = sorted(state.history.generations)
    rungs = []
    for stage in state.stages[:-1]:
        if stage.is_scored:
            of_generations = [state.stages_in(number)[stage.place] for number in generations]
            known = asdict(_learned(state, stage) or observed(state, stage))
            known["survival_rate"] = [float(stage.survival_rate) for stage in of_generations]
            rungs.append({"stage": stage.name, **known})
    return rungs


def _learned(state: RunState, stage: Stage) -> RungReliability | None:
    """What all generations tell of the stage, and what it ranked by in the last; None where cuts
    are fixed."""
    decisions = [d for (_, name), d in state.history.decisions.items() if name == stage.name]
    recorded = [d.reliability for d in decisions if d.reliability is not None]
    if not recorded:
        return None
    in_all = known_of(state, stage, len(state.history.generations))
    return recorded[-1] if in_all is None else replace(in_all, ranked_by=recorded[-1].ranked_by)


def observed(state: RunState, stage: Stage) -> RungReliability:
    """How the stage's figures of those that finished rank them, against their final ones. Those
    that it cut are not known, so agreement over all genomes is likely to be further from 0.

    Agreement is Spearman's rank correlation with Fieller's interval (Biometrika 44, 1957).
    Generations are taken together, as a stage's figures are of equal budgets: with a few finishers
    each, one alone tells next to nothing. Children that inherit weights tend to start and to end
    better, which adds to the agreement. Nothing is known where budgets adapt.
    """
    results = state.history.results
    finished = [genome for genome in state.finished() if (genome, stage.name) in results]
    if any(state.history.budgets.values()):
        finished = []
    early, final = _places(state, finished, stage)
    is_known = len(finished) >= FEWEST_PAIRS and min(np.ptp(early), np.ptp(final)) > 0
    agreement = float(np.corrcoef(early, final)[0, 1]) if is_known else None
    low, high = (None, None) if agreement is None else _interval(agreement, len(finished))
    best = min(MOST_BEST, len(finished) // 2)
    better_half = np.argsort(early, kind="stable")[: len(finished) // 2]
    held = np.isin(np.argsort(final, kind="stable")[:best], better_half).sum()
    return RungReliability(
        pairs=len(finished),
        controls=0,
        agreement=agreement,
        low=low,
        high=high,
        best_held=int(held) if is_known else None,
        best=best if is_known else None,
        ranked_by=stage.promote_by or "objectives",
        survival_rate=str(stage.survival_rate),
    )


def _interval(agreement: float, pairs: int) -> tuple[float, float]:
    """Of 95 %. A perfect order is taken for one halfway to the next possible: that of a few is no
    proof."""
    greatest = 1 - 6 / (pairs**3 - pairs)
    middle = np.arctanh(np.clip(agreement, -greatest, greatest))
    reach = 1.96 * (1.06 / (pairs - 3)) ** 0.5
    return float(np.tanh(middle - reach)), float(np.tanh(middle + reach))


def _places(
    state: RunState, genomes: Sequence[str], stage: Stage
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of genomes by the stage and at the end, the best first, equals sharing a mean: by what
    decides there, but for objectives that training does not change, such as sizes."""
    early, final = (
        [state.history.results[genome, name].metrics for genome in genomes]
        for name in (stage.name, state.last_stage)
    )
    objectives = [
        objective
        for objective in state.config.objectives
        if any(
            a.get(objective.metric) != b.get(objective.metric)
            for a, b in zip(early, final, strict=True)
        )
    ]
    by = objectives
    if stage.promote_by is not None:
        direction = state.config.direction_of(stage.promote_by)
        by = [Objective(metric=stage.promote_by, direction=direction)]
    return _order(state, early, by), _order(state, final, objectives)


def _order(
    state: RunState, figures: Sequence[Metrics], objectives: Sequence[Objective]
) -> NDArray[np.float64]:
    if not figures or not objectives:
        return np.zeros(len(figures))
    points = as_minimised(figures, objectives)
    fronts = ranks(points, violations(figures, constraints_of(state.config)))
    firsts = np.nan_to_num(points[:, 0], nan=np.inf)
    _, places, equals = np.unique(
        np.column_stack([fronts, firsts]), axis=0, return_inverse=True, return_counts=True
    )
    means = np.cumsum(equals) - (equals - 1) / 2
    return np.asarray(means[places])
