"""`coralx validate`: is this config valid?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coralx.api.earlier_runs import read_earlier_runs
from coralx.backends.choice import require_compatible
from coralx.cli.common import errors_naming, warn
from coralx.cli.consoles import output_console
from coralx.config import load_config
from coralx.config.data import key_of
from coralx.config.input_files import missing_inputs
from coralx.config.mode import mode_of
from coralx.engine.budget import budget_warnings
from coralx.engine.succession import succession_of
from coralx.report.presets import preset_lines
from coralx.report.priors import prior_lines
from coralx.schedule.brackets import brackets_of, cohort_sizes
from coralx.schedule.plan_warnings import plan_warnings
from coralx.schedule.short_stage_warnings import short_stage_warnings
from coralx.schedule.stages import Stage, planned_stages
from coralx.search.recipes import own_recipes
from coralx.search.space import space_of
from coralx.system.gpus import visible_gpus


def carry_out(config_path: Path, overrides: Sequence[str]) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    config = load_config(config_path, overrides)
    space = space_of(config)
    with errors_naming(config_path):
        own_recipes(config, space)
        require_compatible(config, config.runtime.backend)
        earlier = read_earlier_runs(
            config.evolution.learn_from,
            is_simulated=mode_of(config) == "simulation" or config.model.base is None,
        )
    stages = planned_stages(config, config.known_rows)
    births, fewest = config.evolution.births(0), config.evolution.fewest_births
    brackets = brackets_of(config.hyperband_config)
    console = output_console()
    sizes = _sizes(stages, births, brackets)
    if fewest < births:
        sizes += f"; newborn in each later generation: {_sizes(stages, fewest, brackets)}"
    lines = [f"{config_path}: valid ({mode_of(config)})", f"genomes per generation: {sizes}"]
    lines += [*preset_lines(config), *prior_lines(space)]
    if config.constraints:
        lines.append(f"constraints: {', '.join(config.constraints)}")
    if earlier:
        lines.append(f"learns from: {', '.join(str(run.layout.root) for run in earlier)}")
    unset = ["model.base"] if config.model.base is None else []
    unset += [key_of(name, "train") for name, own in config.data.sources.items() if not own.train]
    if unset:
        lines.append(f"not set: {', '.join(unset)}; so this config can be simulated, not trained")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    idle = () if visible_gpus() else budget_warnings(config.budget, "cpu")
    short = short_stage_warnings(config, config.known_rows)
    singly = succession_of(config.hyperband_config).overlaps
    warn([*missing_inputs(config), *plan_warnings(config, singly=singly), *short, *idle], console)


def _sizes(stages: Sequence[Stage], births: int, brackets: int) -> str:
    sizes = zip(stages, cohort_sizes(stages, births, brackets), strict=True)
    return ", ".join(f"{stage.name} {size}" for stage, size in sizes)
