"""What a run's history tells of its stages, and how the next generation goes through them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from coralx.engine.state import RunState
from coralx.records.verdicts import Cut, Promote
from coralx.schedule.adaptive_rungs import TEST_SHARE, GenerationPlan, cost_of, first_plan, plan
from coralx.schedule.rung_reliability import Belief, Cohort, prior, updated
from coralx.schedule.stages import Stage
from coralx.search.ranking import by_rank_and_first, constraints_of, objectives_of


def are_adaptive(state: RunState) -> bool:
    """Whether the run's stages cut by how well they have ranked."""
    schedule = state.config.hyperband_config
    return schedule.enable_hyperband and schedule.rungs == "adaptive" and state.history.revision > 2


def generation_plan(state: RunState, generation: int) -> GenerationPlan:
    """How many are born in the generation, and how hard its stages cut: by all before it."""
    stages, evolution = state.stages, state.config.evolution
    if not are_adaptive(state):
        return GenerationPlan(evolution.births(generation), None)
    cost = cost_of(stages, [stage.survival_rate for stage in stages])
    first, later = evolution.births(0), evolution.births(1)
    total = cost * (first + (evolution.generations - 1) * later)
    if generation == 0:
        to_learn = TEST_SHARE * total if evolution.generations > 1 else 0
        return first_plan(stages, cost * first + to_learn, first)
    allowance = (total - _spent(state)) / (evolution.generations - generation)
    beliefs = [belief_in(state, stage, generation) for stage in stages[:-1]]
    return plan(stages, beliefs, allowance, later)


def _spent(state: RunState) -> Fraction:
    """What the search has trained, in trainings to the end."""
    totals = [stage.planned_steps(1) for stage in state.stages]
    added = [total - before for total, before in zip(totals, [Fraction(0), *totals], strict=False)]
    share = {stage.name: step / totals[-1] for stage, step in zip(state.stages, added, strict=True)}
    return sum((share[stage] for _, stage in state.history.results), Fraction(0))


def belief_in(state: RunState, stage: Stage, generation: int) -> Belief:
    """What is held of a stage after all generations before this one."""
    found = cohorts(state, stage, generation)
    return updated(prior(), found)


def cohorts(state: RunState, stage: Stage, before: int) -> list[Cohort]:
    """What the generations `before` this one tell of the stage."""
    history = state.history
    found = []
    for generation in range(before):
        decision = history.decisions.get((generation, stage.name))
        if decision is None:
            continue
        ranked = [v.genome for v in decision.verdicts if isinstance(v, Promote | Cut)]
        finished = [
            genome
            for genome in ranked
            if (genome, state.last_stage) in history.results and not history.is_taken_out(genome)
        ]
        at_stage = _order(state, stage, ranked)
        at_end = _order(state, state.stages[-1], finished)
        found.append(Cohort(len(ranked), tuple(at_stage.index(genome) for genome in at_end)))
    return found


def _order(state: RunState, stage: Stage, genomes: Sequence[str]) -> list[str]:
    """The best first, by what the stage ranks by."""
    figures = [state.history.results[genome, stage.name].metrics for genome in genomes]
    objectives = objectives_of(state.config, stage.promote_by)
    return by_rank_and_first(genomes, figures, objectives, constraints_of(state.config))
