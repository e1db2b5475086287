"""What a new run takes over from earlier ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from coralx.api.earlier_runs import EarlierRun
from coralx.config import Config
from coralx.config.evolution import Objective
from coralx.engine.explosions import exploded
from coralx.engine.state import RunState
from coralx.records.experience import Experience, KnownRung, Likeness, Source
from coralx.records.genomes import Genome
from coralx.records.results import StageResult
from coralx.records.run_facts import Facts
from coralx.search.experience import (
    Evidence,
    Trial,
    exploded_rates,
    known_founders,
    moved_priors,
    with_priors,
)
from coralx.search.likeness import Setting, likeness_of
from coralx.search.ranking import constraints_of, ranked
from coralx.search.recipes import opening_recipes, own_recipes
from coralx.search.space import space_of
from coralx.storage.history import History

SIZES = ("trainable_parameters", "adapter_bytes", "memory", "latency_ms")
"""Objectives that say what an adapter costs, not what it can."""

OF_SIZE = ("rank", "target_modules")
"""Genes that a front is spread along where such an objective is set: no value of them is best."""


def experience_of(config: Config, facts: Facts, runs: Sequence[EarlierRun]) -> Experience | None:
    """What a run with these `facts` takes over from earlier ones; None without any.

    Earlier results are read by this run's objectives where they have its figures.
    """
    if not runs:
        return None
    now = Setting(config, facts)
    sources, evidence, rungs = [], [], list[KnownRung]()
    for run in runs:
        likeness = likeness_of(now, Setting(run.config, run.facts))
        state = RunState(_by_these_objectives(config, run), run.history)
        sources.append(_source(run, likeness, state))
        if likeness is not None:
            evidence.append(_evidence(state, run.layout.name, likeness))
            rungs += _rungs(state, run.layout.name, likeness)
    space = space_of(config)
    left_out = OF_SIZE if any(o.metric in SIZES for o in config.objectives) else ()
    priors = moved_priors(space, evidence, left_out)
    given = opening_recipes(with_priors(space, priors), own_recipes(config, space))
    size = config.evolution.population_size
    return Experience(
        sources=tuple(sources),
        founders=tuple(known_founders(space, size, evidence, given)),
        priors=tuple(priors),
        exploded=tuple(rates for one in evidence if (rates := exploded_rates(one)) is not None),
        rungs=tuple(rungs),
    )


def _by_these_objectives(config: Config, run: EarlierRun) -> Config:
    """The earlier run's config with this run's objectives and constraints, if it has figures of
    them: of finished genomes, as long as none has finished of any."""
    metrics = {objective.metric for objective in config.objectives}
    last = run.config.hyperband_config.training_stages[-1].name
    results = run.history.results
    finished = [result.metrics for (_, stage), result in results.items() if stage == last]
    figures = finished or [result.metrics for result in results.values()]
    if not any(metrics <= known.keys() for known in figures):
        return run.config
    asked = {"objectives": config.objectives, "constraints": config.constraints}
    return run.config.model_copy(update=asked)


def _source(run: EarlierRun, likeness: Likeness | None, state: RunState) -> Source:
    trained, finished = len(_trained(run.history)), len(state.finished())
    remark = ""
    if likeness is None:
        task, base = run.config.model.task, run.config.model.base
        remark = f"another kind of run: {task} on {base or 'a simulated base'}"
    elif not trained:
        remark = "it has trained nothing yet"
    return Source(run.path, run.layout.name, likeness, trained, finished, remark)


def _trained(history: History) -> list[Genome]:
    """Whom it has trained through a stage, in order of birth."""
    names = {genome for genome, _ in history.results}
    return [g for g in history.genomes.values() if g.id in names and g.derived is None]


def _evidence(state: RunState, run: str, likeness: Likeness) -> Evidence:
    history = state.history
    blown_up = exploded(history)
    ordered = _best_first(state, _trained(history))
    trials = {g.id: Trial(g.id, g.genes, g.id in blown_up) for g in ordered}
    front = dict.fromkeys(origin for name in state.front() for origin in _origins(history, name))
    return Evidence(run, likeness, list(trials.values()), [trials[name] for name in front])


def _best_first(state: RunState, genomes: Sequence[Genome]) -> list[Genome]:
    """By the furthest completed stage, then those that were not taken out, then by skill: the first
    objective that is no matter of size."""
    history, places = state.history, {stage.name: stage.place for stage in state.stages}
    skill = next((o for o in state.config.objectives if o.metric not in SIZES), None)

    def standing(genome: Genome) -> tuple[int, bool, float]:
        result = history.last_result(genome.id)
        place = places[result.stage] if result else -1
        return -place, history.is_taken_out(genome.id), _minimised(result, skill)

    return sorted(genomes, key=standing)


def _minimised(result: StageResult | None, skill: Objective | None) -> float:
    figure = result.metrics.get(skill.metric) if result and skill else None
    if skill is None or figure is None:
        return math.inf
    return -figure if skill.direction == "maximize" else figure


def _origins(history: History, name: str) -> list[str]:
    """The genome itself, or if it was derived those whose training it rests on."""
    genome = history.genomes[name]
    if genome.derived is None:
        return [name]
    return [origin for source in genome.derived.sources for origin in _origins(history, source)]


def _rungs(state: RunState, run: str, likeness: Likeness) -> list[KnownRung]:
    """How the stages before the last ranked those that finished. A stage's figures are pooled over
    all generations: they have the same budget and rows."""
    *stages, last = state.stages
    at_end = _order(state, last.name, [g for g in state.finished() if _is_trained(state, g)])
    if len(at_end) < 2:
        return []
    rungs = []
    for stage in stages:
        scored = [genome for genome, name in state.history.results if name == stage.name]
        order = _order(state, stage.name, scored) if stage.is_scored else []
        places = tuple(order.index(genome) for genome in at_end if genome in order)
        if len(places) > 1:
            share = float(stage.planned_steps(1) / last.planned_steps(1))
            rungs.append(KnownRung(run, likeness, stage.name, share, len(order), places))
    return rungs


def _is_trained(state: RunState, genome: str) -> bool:
    return state.history.genomes[genome].derived is None


def _order(state: RunState, stage: str, genomes: Sequence[str]) -> list[str]:
    """The best first by the figures of a stage."""
    figures = [state.history.results[genome, stage].metrics for genome in genomes]
    objectives, constraints = state.config.objectives, constraints_of(state.config)
    return ranked(genomes, figures, objectives, constraints, keep_first_objective=True)
