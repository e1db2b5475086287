"""Looks at the validation split: how often a candidate was scored on it.

Whoever chooses the best of many by one sample of rows chooses its luck as well, and the more so the
more were tried. A report therefore counts every scoring of what might have been chosen. Baselines
and verifications are scored, too, but none of them is chosen for it, so they do not count; nor does
a checkpoint that was lost and made again, whose figures decide nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from coralx.engine.state import RunState
from coralx.records.results import StageResult
from coralx.schedule.stages import Stage

Occasion = Literal["training", "derivation", "blends"]
"""Upon what candidates were scored: the end of a stage, a derivation, or the choice between two
parents' blend and one parent."""

OCCASIONS: tuple[Occasion, ...] = ("training", "derivation", "blends")


@dataclass(frozen=True)
class _Scoring:
    """So many looks of one kind."""

    occasion: Occasion
    looks: int
    is_whole: bool
    """Whether all rows of the split were scored, not only the stage's sample of them."""


def looks_of(state: RunState) -> dict[str, Any]:
    """How many looks a run took in all, on which occasion, and how many of them at a sample of the
    split only: keys of the report's `efficiency`."""
    by_occasion: Counter[Occasion] = Counter()
    at_samples = 0
    for scoring in _scorings(state):
        by_occasion[scoring.occasion] += scoring.looks
        at_samples += 0 if scoring.is_whole else scoring.looks
    return {
        "validation_looks": by_occasion.total(),
        "validation_looks_by": {name: by_occasion[name] for name in OCCASIONS},
        "validation_looks_at_samples": at_samples,
    }


def own_looks(state: RunState, genome: str) -> int:
    """How often the genome itself was scored."""
    return sum(
        scoring.looks
        for result in state.history.results_of(genome)
        for scoring in _of_result(result, _stage(state, genome, result.stage), "training")
    )


def looks_behind(state: RunState, genome: str) -> int:
    """How many looks led to a genome: at itself, at all that it stems from by weights, and where it
    is derived, at the others that the same operator made of the same sources, as it was chosen
    among them."""
    history = state.history
    ancestors: set[str] = set()
    waiting = [genome]
    while waiting:
        name = waiting.pop()
        if name in ancestors or name not in history.genomes:
            continue
        ancestors.add(name)
        waiting += [*history.genomes[name].donors, *_rivals(state, name)]
    return sum(own_looks(state, name) for name in ancestors)


def _rivals(state: RunState, name: str) -> list[str]:
    """The other genomes that the operator which made it has made of the same sources."""
    own = state.history.genomes[name].derived
    if own is None:
        return []
    return [
        other.id
        for others in state.history.derived.values()
        for other in others
        if other.derived is not None
        and (other.derived.operator, other.derived.sources) == (own.operator, own.sources)
    ]


def _scorings(state: RunState) -> Iterator[_Scoring]:
    history = state.history
    for (genome, stage), result in history.results.items():
        occasion: Occasion = "derivation" if history.genomes[genome].derived else "training"
        yield from _of_result(result, _stage(state, genome, stage), occasion)


def _of_result(result: StageResult, stage: Stage, occasion: Occasion) -> Iterator[_Scoring]:
    is_whole = stage.eval_limit is None
    if stage.is_scored and result.divergence is None:
        yield _Scoring(occasion, 1, is_whole)
    if result.inheritance is not None and result.inheritance.blend is not None:
        yield _Scoring("blends", 2, is_whole)  # the blend, and the better parent's weights alone


def _stage(state: RunState, genome: str, name: str) -> Stage:
    stages = state.stages_in(state.history.genomes[genome].generation)
    return next(stage for stage in stages if stage.name == name)
