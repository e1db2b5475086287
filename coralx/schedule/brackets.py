"""Brackets of Hyperband: how a generation hedges against cuts that come too early.

Bracket k begins at stage k: its genomes train up to that stage's budget before they are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from heapq import heapify, heapreplace

from coralx.config.hyperband import HyperbandConfig
from coralx.schedule.stages import Stage


def brackets_of(configured: HyperbandConfig) -> int:
    """How many brackets a run has; one where no genome is cut."""
    return configured.brackets if configured.enable_hyperband else 1


def bracket_sizes(stages: Sequence[Stage], brackets: int, population: int) -> tuple[int, ...]:
    """How many of `population` genomes each bracket gets, so that all cost about the same.

    With B steps a bracket, bracket k holds ceil(B / c_k) genomes, where c_k is what one of them
    costs if every stage is trained from scratch: for stages whose budgets grow by eta and that let
    1 / eta pass, c_k = (s + 1) R eta^-s, so that these are the n of Hyperband (Li et al. 2018,
    algorithm 1). B is the greatest for which they are no more than the population; of equals the
    earlier bracket grows first.
    """
    costs = [_cost(stages[k:]) for k in range(min(brackets, population))]
    sizes = [1] * len(costs)
    waiting = [(cost, k) for k, cost in enumerate(costs)]
    heapify(waiting)
    for _ in range(population - len(costs)):
        # Bracket k holds more than m genomes as soon as B exceeds m c_k: with a growing B, the
        # bracket of the smallest m c_k is the next to grow.
        _, smallest = waiting[0]
        sizes[smallest] += 1
        heapreplace(waiting, (sizes[smallest] * costs[smallest], smallest))
    return tuple(sizes)


def _cost(stages: Sequence[Stage]) -> Fraction:
    """What a genome that enters `stages` costs on average, as some are cut on the way."""
    total, share = Fraction(0), Fraction(1)
    for stage in stages:
        total += share * stage.planned_steps(1)
        share *= stage.survival_rate
    return total


def entries(
    stages: Sequence[Stage], population: int, brackets: int = 1
) -> tuple[tuple[int, int], ...]:
    """For each stage, how many genomes begin there and how many go on into it from the one before,
    if no stop rule takes one out."""
    table = [(0, 0)] * len(stages)
    for bracket, size in enumerate(bracket_sizes(stages, brackets, population)):
        begun, going_on = size, 0
        for stage in stages[bracket:]:
            row = table[stage.place]
            table[stage.place] = (row[0] + begun, row[1] + going_on)
            begun, going_on = 0, stage.quota(begun + going_on)
    return tuple(table)


def cohort_sizes(stages: Sequence[Stage], population: int, brackets: int = 1) -> tuple[int, ...]:
    """How many genomes train in each stage if no stop rule takes one out."""
    return tuple(begun + going_on for begun, going_on in entries(stages, population, brackets))
