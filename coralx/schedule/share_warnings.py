"""Warnings about shares of genomes: where a rounded decimal such as 0.33 loses a genome that 1/3
would not, and where a survival rate lets nobody pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from coralx.config.exact_numbers import written
from coralx.config.schema import Config
from coralx.schedule.brackets import bracket_sizes, brackets_of, cohort_sizes
from coralx.schedule.stages import Stage, planned_stages
from coralx.text import counted

SUSPECTED = ((3, Fraction(1, 100)), (12, Fraction(1, 1000)))
"""A decimal is taken for a fraction of at most this denominator that is less than so much above it:
0.33 and 0.66 for thirds; 0.333, 0.1428 and 0.0833 for twelfths and larger parts."""


def rate_warnings(config: Config, rows: int, *, singly: bool) -> list[str]:
    """At most one warning for each share of the config. `rows`: of training, of which stages that
    are too short to cut follow; 0 where they are not known. `singly`: whether genomes are promoted
    one by one."""
    if not config.hyperband_config.enable_hyperband:
        return []
    warnings: dict[str, str] = {}  # by key; empty where there is nothing to warn of
    stages = planned_stages(config, rows)
    for key, rate, genomes in _other_shares(config, stages):
        warnings.setdefault(key, _rounded_warning(key, rate, genomes))
    warning_of = _asynchronous_warning if singly else _synchronous_warning
    for stage, genomes in _stages_with_genomes(config, stages, singly=singly):
        # with brackets, a stage comes repeatedly
        warnings[_key(stage)] = warnings.get(_key(stage)) or warning_of(stage, genomes)
    return [warning for warning in warnings.values() if warning]


def _synchronous_warning(stage: Stage, genomes: int) -> str:
    return _rounded_warning(_key(stage), stage.survival_rate, genomes, least=1)


def _asynchronous_warning(stage: Stage, genomes: int) -> str:
    near = fraction_meant(stage.survival_rate)
    # The rate is applied to a growing number of genomes: it matters once there are so many that the
    # fraction lets one more go on.
    if near and genomes >= near.denominator:
        return _rounded_warning(_key(stage), stage.survival_rate, near.denominator)
    return _stuck_warning(stage, genomes) if stage.survival_rate * genomes < 1 else ""


def fraction_meant(rate: Fraction) -> Fraction | None:
    """The fraction of which a decimal seems to be the rounded form, where it is rounded down. None
    for what is such a fraction, and where the fraction could be written as a short decimal."""
    for denominator, nearest in SUSPECTED:
        near = rate.limit_denominator(denominator)
        has_short_decimal = 10**6 % near.denominator == 0
        if 0 < near - rate < nearest and not has_short_decimal:
            return near
    return None


def _rounded_warning(key: str, rate: Fraction, genomes: int, *, least: int = 0) -> str:
    """A warning where the fraction that a decimal stands for would let more of so many genomes
    pass; empty where it would not. `least` pass at any rate."""
    near = fraction_meant(rate)
    if near is None:
        return ""
    now, then = (max(least, math.floor(share * genomes)) for share in (rate, near))
    if now == then:
        return ""
    return (
        f"{key} is {written(rate)}, which of {counted(genomes, 'genome')} is {now}; {near} is "
        f"{then}. Write {near} if you mean that"
    )


def _stuck_warning(stage: Stage, genomes: int) -> str:
    return (
        f"{_key(stage)} is {written(stage.survival_rate)}, and at most "
        f"{counted(genomes, 'genome')} of the whole run will train {stage.name}: under "
        "asynchronous promotion none goes on before all else is done, and then only the best. "
        "Raise the rate, evolution.population_size or evolution.generations"
    )


def _key(stage: Stage) -> str:
    return f"hyperband_config.training_stages.{stage.place}.survival_rate"


def _stages_with_genomes(
    config: Config, stages: Sequence[Stage], *, singly: bool
) -> Iterator[tuple[Stage, int]]:
    """Each stage before the last with how many genomes compete there, bracket by bracket: those of
    the first generation, or where they are promoted singly those of the whole run."""
    evolution, brackets = config.evolution, brackets_of(config.hyperband_config)
    sizes = list(bracket_sizes(stages, brackets, evolution.births(0)))
    if singly:
        later = bracket_sizes(stages, brackets, evolution.fewest_births)
        for bracket, size in enumerate(later):
            sizes[bracket] += (evolution.generations - 1) * size
    for bracket, size in enumerate(sizes):
        for stage in stages[bracket:-1]:
            yield stage, size
            size = stage.quota(size)


def _other_shares(config: Config, stages: Sequence[Stage]) -> Iterator[tuple[str, Fraction, int]]:
    """The shares that are taken of a population or of those who go on."""
    evolution, schedule = config.evolution, config.hyperband_config
    if evolution.generations > 1:
        yield "evolution.elite_fraction", evolution.elite_fraction, evolution.population_size
    most = most_replaceable(stages, evolution.births(0), brackets_of(schedule))
    yield "evolution.pbt_quantile", evolution.pbt_quantile, most


def most_replaceable(stages: Sequence[Stage], population: int, brackets: int) -> int:
    """The most genomes that go on from a stage which is scored: only there is it known who is poor
    enough to be replaced by a copy."""
    # Those who go on are the cohort of the stage after it.
    going_on = zip(stages, cohort_sizes(stages, population, brackets)[1:], strict=False)
    return max((genomes for stage, genomes in going_on if stage.is_scored), default=0)
