"""What is to be said against a plan before it is paid: a meagre front, keys that do nothing, and
code that comes with a model."""

from __future__ import annotations

from coralx.config.exact_numbers import written
from coralx.config.schema import Config
from coralx.config.warnings import measurements, remote_code
from coralx.schedule.brackets import brackets_of, cohort_sizes
from coralx.schedule.cost import finisher_warning
from coralx.schedule.rate_warnings import rate_warnings
from coralx.schedule.short_stages import planned_stages
from coralx.text import counted


def caveats(config: Config) -> list[str]:
    """Warnings about a config that is to be trained, none where it does what it says."""
    schedule, births = config.hyperband_config, config.evolution.fewest_births
    stages = planned_stages(config, config.known_rows)
    few = finisher_warning(stages, births, brackets_of(schedule))
    idle = idle_keys(config) if schedule.enable_hyperband else []
    return [
        *remote_code(config),
        *([few] if few else []),
        *rate_warnings(config),
        *idle,
        *measurements(config),
    ]


def idle_keys(config: Config) -> list[str]:
    """Keys that are set and change nothing, each with what would make it act."""
    schedule, evolution = config.hyperband_config, config.evolution
    stages = planned_stages(config, config.known_rows)
    sizes = cohort_sizes(stages, evolution.births(0), brackets_of(schedule))
    found = []
    if evolution.generations == 1:
        later = {
            "hyperband_config.adaptive_budgets": schedule.adaptive_budgets,
            "evolution.checkpoint_crossover": evolution.checkpoint_crossover.is_on,
            "evolution.resize_adapters": evolution.resize_adapters,
            "evolution.elite_fraction": bool(evolution.elite_fraction),
        }
        found += [
            f"{key} acts from the second generation on, and evolution.generations is 1"
            for key, is_set in later.items()
            if is_set
        ]
    elif evolution.resize_adapters and evolution.inherit == "off":
        found.append("evolution.resize_adapters needs evolution.inherit, which is off")
    most = max(sizes[1:], default=0)
    if evolution.pbt_quantile and int(evolution.pbt_quantile * most) == 0:
        found.append(
            f"evolution.pbt_quantile is {written(evolution.pbt_quantile)}, and at most "
            f"{counted(most, 'genome')} {'goes' if most == 1 else 'go'} on from a stage: fewer "
            "than one is replaced. Raise it, or the population"
        )
    return found
