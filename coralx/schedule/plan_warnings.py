"""All warnings about a config that is to be trained, but for those about short stages, which depend
on the number of rows; and two kinds of its own: too few finishers, and keys without effect."""

from __future__ import annotations

from collections.abc import Sequence

from coralx.config.exact_numbers import written
from coralx.config.schema import Config
from coralx.config.warnings import measurement_warnings, remote_code_warnings
from coralx.schedule.brackets import brackets_of, cohort_sizes
from coralx.schedule.share_warnings import most_replaceable, rate_warnings
from coralx.schedule.stages import Stage, planned_stages
from coralx.text import counted


def plan_warnings(config: Config, *, singly: bool) -> list[str]:
    """Warnings about a config that is to be trained, as far as its rows are known. `singly`:
    whether genomes are promoted one by one."""
    return [
        *remote_code_warnings(config),
        *schedule_caveats(config, config.known_rows, singly=singly),
        *measurement_warnings(config),
    ]


ENOUGH = 3
"""Finishers of a generation that make a front of trade-offs."""


def schedule_caveats(config: Config, rows: int, *, singly: bool) -> list[str]:
    """Warnings about who goes on and what acts in a schedule on so many training rows. On 0 rows
    all stages count as long enough to cut."""
    schedule, births = config.hyperband_config, config.evolution.fewest_births
    # Of each finisher adapters of several sizes are derived.
    enough = 2 if config.evolution.derive.is_on else ENOUGH
    few = finisher_warning(planned_stages(config, rows), births, brackets_of(schedule), enough)
    idle = idle_keys(config, rows) if schedule.enable_hyperband else []
    return [*([few] if few else []), *rate_warnings(config, rows, singly=singly), *idle]


def finisher_warning(
    stages: Sequence[Stage], population_size: int, brackets: int = 1, enough: int = ENOUGH
) -> str | None:
    """A warning where fewer than `enough` genomes a generation enter the last stage; else None."""
    finishers = cohort_sizes(stages, population_size, brackets)[-1]
    if finishers >= enough:
        return None
    if finishers == population_size:
        return (
            f"{counted(finishers, 'genome')} a generation {'is' if finishers == 1 else 'are'} too "
            "few for a front of trade-offs. Raise evolution.population_size"
        )
    return (
        f"only {finishers} of {population_size} genomes a generation would enter the last stage "
        f"({stages[-1].name}): too few for a front of trade-offs. Raise the survival rates or "
        "evolution.population_size"
    )


def idle_keys(config: Config, rows: int) -> list[str]:
    """A warning for each key that is set and has no effect, with what would give it one."""
    schedule, evolution = config.hyperband_config, config.evolution
    stages = planned_stages(config, rows)
    warnings = []
    if evolution.generations == 1:
        later = {
            "hyperband_config.adaptive_budgets": schedule.adaptive_budgets,
            "evolution.checkpoint_crossover": evolution.checkpoint_crossover.is_on,
            "evolution.elite_fraction": bool(evolution.elite_fraction),
        }
        warnings += [
            f"{key} has no effect before the second generation, and evolution.generations is 1"
            for key, is_set in later.items()
            if is_set
        ]
    most = most_replaceable(stages, evolution.births(0), brackets_of(schedule))
    if evolution.pbt_quantile and int(evolution.pbt_quantile * most) == 0:
        warnings.append(
            f"evolution.pbt_quantile is {written(evolution.pbt_quantile)}, and at most "
            f"{counted(most, 'genome')} {'goes' if most == 1 else 'go'} on from a stage: fewer "
            "than one is replaced. Raise it, or evolution.population_size"
        )
    return warnings
