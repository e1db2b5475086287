"""The order of genomes whose figures may be compared: who is better, by a config's own measure."""

from __future__ import annotations

from collections.abc import Sequence

from coralx.config.evolution import Objective
from coralx.config.rules import ParsedRule
from coralx.config.schema import Config
from coralx.facts import REVISION
from coralx.results import Metrics
from coralx.rng import generator
from coralx.search.constraints import violations
from coralx.search.nsga3 import Niching, niched_first
from coralx.search.pareto import as_minimised, best_first


def niching_of(
    config: Config, places: int, purpose: str, generation: int, index: int | str = 0
) -> Niching | None:
    """What NSGA-III needs to choose for so many `places`; None under NSGA-II."""
    if config.evolution.selection == "nsga2":
        return None
    return Niching(places, generator(config.experiment.seed, purpose, generation, index))


def in_order(
    ids: Sequence[str],
    metrics: Sequence[Metrics],
    objectives: Sequence[Objective],
    constraints: Sequence[ParsedRule] = (),
    niching: Niching | None = None,
    *,
    keep_first_objective: bool = False,
    revision: int = REVISION,
) -> list[str]:
    """Ids, best first: the feasible by non-dominated rank, then the infeasible by violation; within
    a front by crowding, or with `niching` by reference points; ties by id or, there, by its rng.

    With `keep_first_objective`, each front begins with its best on the first-listed objective.
    `revision` is that of the run.
    """
    points = as_minimised(metrics, objectives)
    missed = violations(metrics, constraints)
    keep = keep_first_objective
    if niching is None:
        return best_first(ids, points, missed, keep_first_objective=keep, revision=revision)
    return niched_first(ids, points, niching, missed, keep_first_objective=keep, revision=revision)
