"""What a stage decides: stop rules, then promotion, and who gives way to a copy of a better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from coralx.config import Config
from coralx.engine.rung_estimates import figure_of, known_of
from coralx.engine.state import RunState
from coralx.records.events import StageDecided
from coralx.records.genomes import Genome
from coralx.records.results import StageResult
from coralx.records.run_facts import REVISION
from coralx.records.subjects import Searched
from coralx.records.verdicts import Promote, Replace, Verdict
from coralx.schedule.promotion import decide
from coralx.schedule.stages import Stage
from coralx.schedule.stop_rules import judge
from coralx.search.pbt import exploit
from coralx.search.ranking import constraints_of, niching_of, objectives_of, ranked
from coralx.search.space import space_of


def promotion_order(
    config: Config,
    stage: Stage,
    results: Sequence[StageResult],
    entered: int,
    generation: int = 0,
    revision: int = REVISION,
) -> list[str]:
    """Best first: by `promote_by` where the stage names a metric, else by the objectives; those
    that meet the constraints first in either case. `entered` genomes compete for the places.
    `revision` is that of the run."""
    objectives = objectives_of(config, stage.promote_by)
    return ranked(
        [result.genome for result in results],
        [result.metrics for result in results],
        objectives,
        constraints_of(config),
        niching_of(config, stage.quota(entered), "promote", generation, stage.name),
        keep_first_objective=True,
        revision=revision,
    )


def decide_stage(
    state: RunState, stage: Stage, generation: int, entered: Sequence[Genome]
) -> StageDecided:
    """A verdict for every genome that entered. Stop rules are applied to the stage as a whole, the
    survival rate to each bracket by itself."""
    config, history = state.config, state.history
    # Who is certain to go on may have failed in the next stage by now.
    failures = {
        genome.id: history.failures[Searched(genome.id)].reason
        for genome in entered
        if history.has_failed(genome.id) and (genome.id, stage.name) not in history.results
    }
    results = {g.id: history.results[g.id, stage.name] for g in entered if g.id not in failures}
    controls = {genome.id for genome in entered if genome.is_control}
    judgement = judge(stage, list(results.values()), history.revision, controls)
    figure = figure_of(state, stage, generation)
    ranking = stage if figure == "objectives" else replace(stage, promote_by=figure)
    verdicts: list[Verdict] = []
    for bracket in sorted({genome.bracket for genome in entered}):
        members = [genome.id for genome in entered if genome.bracket == bracket]
        trained = [results[name] for name in members if name in results]
        failed = {name: failures[name] for name in members if name in failures}
        ranked = [result for result in trained if result.genome not in judgement.breaches]
        order = promotion_order(config, ranking, ranked, len(members), generation, history.revision)
        verdicts += decide(stage, trained, order, judgement.breaches, failed, controls)
    copies = _copies(state, stage, generation, verdicts)
    for index, verdict in enumerate(verdicts):
        if verdict.genome in copies:
            verdicts[index] = Replace(verdict.genome, by=copies[verdict.genome].id)
    return StageDecided(
        generation,
        stage.name,
        tuple(verdicts),
        judgement.not_judged,
        judgement.warnings,
        newborn=tuple(copies.values()),
        reliability=None if stage.is_last else known_of(state, stage, generation),
    )


def may_replace(state: RunState, stage: Stage) -> bool:
    """Whether copies of the best may go on from the stage in place of others."""
    config = state.config
    copies = bool(config.evolution.pbt_quantile) and config.hyperband_config.enable_hyperband
    # Where a stage is not scored, nothing tells who is the poorest.
    return copies and not stage.is_last and stage.is_scored


def _copies(
    state: RunState, stage: Stage, generation: int, verdicts: Sequence[Verdict]
) -> dict[str, Genome]:
    """Mutated copies of the best that go on in place of the poorest, by whom they replace."""
    config, history = state.config, state.history
    if not may_replace(state, stage):
        return {}
    quantile: Fraction | float = config.evolution.pbt_quantile
    if history.started is not None and history.started.settings.revision < 2:
        quantile = float(quantile)  # as it was multiplied then: 0.29 of 100 genomes was 28
    promoted = [history.genomes[v.genome] for v in verdicts if isinstance(v, Promote)]
    # Copies take the places after the newborn in the ids, whichever stage they come from.
    born = sum(g.continues is not None for g in history.generations[generation])
    copies: dict[str, Genome] = {}
    for bracket in sorted({genome.bracket for genome in promoted}):
        copies |= exploit(
            [genome for genome in promoted if genome.bracket == bracket],
            history.trained_genes() + [copy.genes for copy in copies.values()],
            space_of(config),
            quantile=quantile,
            place=stage.place + 1,
            index=config.evolution.population_size + born + len(copies),
            seed=config.experiment.seed,
        )
    return copies
