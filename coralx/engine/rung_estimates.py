"""What a run's history tells of its stages, and how the next generation goes through them.

A stage's figures and those at the end are compared within a generation only: children that inherit
weights start better and end better, which says nothing of how well a stage ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from coralx.config.evolution import Objective
from coralx.engine.state import RunState
from coralx.records.rung_reliability import RungReliability
from coralx.records.verdicts import Cut, Promote
from coralx.schedule.adaptive_rungs import (
    GenerationPlan,
    cost_of,
    first_plan,
    later_plan,
)
from coralx.schedule.rung_reliability import Belief, Cohort, best_held, prior, updated
from coralx.schedule.stages import Stage
from coralx.search.ranking import by_rank_and_first, constraints_of, objectives_of

HALF = 0.5
LIKENESS_WEIGHTS = {"same base and data": 1.0, "same base": 0.5, "same kind": 0.25}
"""What a genome of an earlier run counts in comparison with one of this run."""

NEAR = Fraction(3, 2)
"""A stage of an earlier run tells of one of this run that is at most so many times as long."""

EVEN, AT_WORST = 0.5, 0.2
"""A figure is judged by how likely the half that it ranks higher holds the best: of the configured
one what is as likely too low as too high, of another what it is but for a probability of 0.2."""

OTHER_FIGURES = ("train_loss", "loss_slope")
"""What a stage may rank by in place of what it is configured to."""


def are_adaptive(state: RunState) -> bool:
    """Whether the run's stages cut by how well they have ranked."""
    return state.config.hyperband_config.cuts_adapt and state.history.revision >= 3


def generation_plan(state: RunState, generation: int) -> GenerationPlan | None:
    """How many are born in the generation, and how hard its stages cut: by all before it. None
    where rungs are fixed.

    The run's total of planned steps is kept: what is left of it is shared equally among the
    generations that are left.
    """
    if not are_adaptive(state):
        return None
    stages, evolution = state.stages, state.config.evolution
    first, later = evolution.births(0), evolution.births(1)
    rates = [stage.survival_rate for stage in stages]
    costs = [cost_of(stages, rates, births) for births in (first, later)]
    total = costs[0] + (evolution.generations - 1) * costs[1]
    if generation == 0:
        return first_plan(stages, first, total)
    allowance = (total - _spent(state)) / (evolution.generations - generation)
    beliefs = [_view(state, stage, generation).belief for stage in stages[:-1]]
    return later_plan(stages, beliefs, allowance, later)


def _spent(state: RunState) -> Fraction:
    """What the search has trained, in trainings to the end."""
    before, share = Fraction(0), {}
    for stage in state.stages:
        share[stage.name] = stage.planned_steps(1) - before
        before = stage.planned_steps(1)
    history = state.history
    trained = [stage for name, stage in history.results if history.genomes[name].derived is None]
    return sum((share[stage] for stage in trained), Fraction(0)) / before


@dataclass(frozen=True)
class _View:
    """A stage, seen by one figure."""

    figure: str
    """A metric's name, or "objectives"."""
    cohorts: tuple[Cohort, ...]
    belief: Belief


def figure_of(state: RunState, stage: Stage, generation: int) -> str:
    """What the stage ranks by in the generation: a metric's name, or "objectives"."""
    if stage.is_last or not stage.is_scored or not are_adaptive(state):
        return stage.promote_by or "objectives"
    return _view(state, stage, generation).figure


def _view(state: RunState, stage: Stage, before: int) -> _View:
    """The stage by the figure that it is configured to rank by; or by another that has ranked
    better in the generations `before`, though it had only luck as far as it may have."""
    own = _view_by(state, stage, stage.promote_by or "objectives", before)
    views = [_view_by(state, stage, name, before) for name in OTHER_FIGURES if name != own.figure]
    # A figure that is not there in every generation is not compared with one that is.
    others = [view for view in views if len(view.cohorts) == len(own.cohorts) > 0]
    best = max(others, key=lambda view: view.belief.kept(HALF, AT_WORST), default=own)
    return best if best.belief.kept(HALF, AT_WORST) > own.belief.kept(HALF, EVEN) else own


def _view_by(state: RunState, stage: Stage, figure: str, before: int) -> _View:
    found = tuple(_cohorts(state, stage, figure, before))
    belief = prior()
    if figure == (stage.promote_by or "objectives"):
        belief = _informed(state, stage, belief)
    return _View(figure, found, updated(belief, found))


def _informed(state: RunState, stage: Stage, belief: Belief) -> Belief:
    """The belief in the light of earlier runs that this one learns from: of their stages of about
    the same share of a whole training."""
    started = state.history.started
    experience = started.experience if started is not None else None
    share = stage.planned_steps(1) / state.stages[-1].planned_steps(1)
    for rung in experience.rungs if experience is not None else ():
        if share / NEAR <= Fraction(rung.share) <= share * NEAR:
            cohort = Cohort(rung.ranked, rung.finishers)
            belief = updated(belief, [cohort], LIKENESS_WEIGHTS[rung.likeness])
    return belief


def _cohorts(state: RunState, stage: Stage, figure: str, before: int) -> list[Cohort]:
    """What the generations `before` this one tell of the stage if it ranks by `figure`."""
    history, found = state.history, []
    for generation in range(before):
        ranked, finished = _ranked_and_finished(state, stage, generation)
        if figure in OTHER_FIGURES and any(
            history.results[genome, stage.name].metrics.get(figure) is None for genome in ranked
        ):
            continue
        by = _trained(state, stage, finished)
        at_stage = _order(state, stage.name, ranked, by if figure == "objectives" else figure)
        at_end = _order(state, state.last_stage, finished, by)
        places = {genome: place for place, genome in enumerate(at_stage)}
        found.append(Cohort(len(ranked), tuple(places[genome] for genome in at_end)))
    return found


def _ranked_and_finished(
    state: RunState, stage: Stage, generation: int
) -> tuple[list[str], list[str]]:
    """Of a generation, the genomes that the stage ranked, and those of them that finished."""
    history = state.history
    decision = history.decisions.get((generation, stage.name))
    verdicts = decision.verdicts if decision is not None else ()
    ranked = [verdict.genome for verdict in verdicts if isinstance(verdict, Promote | Cut)]
    last = state.last_stage
    finished = [g for g in ranked if (g, last) in history.results and not history.is_taken_out(g)]
    return ranked, finished


def _trained(state: RunState, stage: Stage, genomes: Sequence[str]) -> tuple[Objective, ...]:
    """The objectives that training changes: a size is at the end what it was before, and agreement
    on it says nothing."""
    results, last = state.history.results, state.last_stage
    changing = tuple(
        objective
        for objective in state.config.objectives
        if any(
            results[genome, stage.name].metrics.get(objective.metric)
            != results[genome, last].metrics.get(objective.metric)
            for genome in genomes
        )
    )
    return changing or tuple(state.config.objectives)


def _order(
    state: RunState, stage: str, genomes: Sequence[str], by: str | tuple[Objective, ...]
) -> list[str]:
    """The best first, by objectives or by one metric."""
    figures = [state.history.results[genome, stage].metrics for genome in genomes]
    objectives = objectives_of(state.config, by) if isinstance(by, str) else by
    return by_rank_and_first(genomes, figures, objectives, constraints_of(state.config))


def known_of(state: RunState, stage: Stage, generation: int) -> RungReliability | None:
    """What is known of a stage from the generations before this one, and what it does about it;
    None where rungs are fixed, and of a stage that is not scored."""
    if not (are_adaptive(state) and stage.is_scored):
        return None
    view = _view(state, stage, generation)
    held, best = best_held(view.cohorts)
    low, high = view.belief.interval() if best else (None, None)
    groups = [_ranked_and_finished(state, stage, earlier)[1] for earlier in range(generation)]
    controls = [g for group in groups for g in group if state.history.genomes[g].is_control]
    return RungReliability(
        pairs=sum(map(len, groups)),
        controls=len(controls),
        agreement=view.belief.agreement if best else None,
        low=low,
        high=high,
        best_held=held if best else None,
        best=best or None,
        ranked_by=view.figure if stage.survival_rate < 1 else "nothing",
        survival_rate=str(stage.survival_rate),
    )
