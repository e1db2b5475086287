"""`coralx simulate`: the plan and its price, before anything is paid."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coralx.api.simulation import (
    Strategy,
    compare_strategies,
    number,
    plan_for,
    plan_json,
    planned_experience,
)
from coralx.cli.common import errors_naming, warn
from coralx.cli.consoles import output_console, print_json
from coralx.config import Config, load_config
from coralx.engine.derivation import derives
from coralx.engine.state import RunState
from coralx.errors import UsageError
from coralx.report.experience import experience_json, experience_lines
from coralx.report.formatting import figure, ratio
from coralx.report.presets import preset_lines
from coralx.report.priors import prior_lines, priors_json
from coralx.report.rungs import ADAPTIVE_RUNGS
from coralx.report.table_layout import fitting
from coralx.schedule.cost import Plan
from coralx.schedule.short_stage_warnings import short_stage_warnings
from coralx.search.experience import with_priors
from coralx.search.space import space_of
from coralx.storage.history import History
from coralx.text import counted


def carry_out(
    config_path: Path,
    overrides: Sequence[str],
    *,
    tuned_on: Sequence[str] | None,
    metrics: Sequence[str],
    tolerance: float | None,
    as_json: bool,
) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    config = load_config(config_path, overrides)
    if tuned_on is not None:
        from coralx.cli import schedule_tuning

        sources = [source for source in tuned_on if source]
        schedule_tuning.carry_out(config, sources, metrics, tolerance, as_json=as_json)
        return
    if metrics or tolerance is not None:
        raise UsageError(
            f"{'--metric' if metrics else '--tolerance'} is for --tune-schedule",
            "Add --tune-schedule CURVES.csv, or leave it out.",
        )
    with errors_naming(config_path):
        plan = plan_for(config)
        has_elite = config.evolution.fewest_births < plan.population_size
        later = plan_for(config, 1) if has_elite else None
        experience = planned_experience(config)
        strategies = compare_strategies(config, experience)
    space = with_priors(space_of(config), experience.priors if experience else ())
    warnings = short_stage_warnings(config, config.known_rows)
    schedule = config.hyperband_config
    if as_json:
        print_json(
            {
                "plan": plan_json(plan),
                **({"preset": schedule.preset} if schedule.preset else {}),
                **({"later_plan": plan_json(later)} if later else {}),
                "priors": priors_json(space),
                "experience": experience_json(experience),
                "strategies": [vars(strategy) for strategy in strategies],
                "warnings": warnings,
            }
        )
        return
    console = output_console()
    _print_plan(plan, console)
    if later:
        _print_later(later, console)
    if schedule.cuts_adapt:
        console.print(f"{ADAPTIVE_RUNGS[0].upper()}{ADAPTIVE_RUNGS[1:]}.", highlight=False)
    if derives(RunState(config, History())):
        _print_derivations(config, console)
    experiences = experience_lines(experience_json(experience))
    for line in (*preset_lines(config), *experiences, *prior_lines(space)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    warn(warnings, console)
    console.print()
    _print_strategies(strategies, config.objectives[0].metric, console)


def _print_plan(plan: Plan, console: Console) -> None:
    table = Table(
        title=f"One generation of {counted(plan.population_size, 'genome')}, "
        f"{counted(plan.steps_per_epoch, 'step')} per epoch",
        title_justify="left",
    )
    table.add_column("stage")
    for name in ("genomes", "data", "steps each", "restart steps", "continue steps"):
        table.add_column(name, justify="right")
    for stage in plan.stages:
        table.add_row(
            stage.name,
            str(stage.genomes),
            f"{float(100 * stage.data_fraction):g} %",
            _steps(stage.steps_per_genome),
            _steps(stage.restart_steps),
            _steps(stage.continue_steps),
        )
    table.add_section()
    totals = (plan.restart_steps, plan.continue_steps)
    table.add_row("total", "", "", "", *(_steps(total) for total in totals))
    console.print(fitting(table))
    console.print(
        f"Training every genome to the end: {_steps(plan.naive_steps)} steps. Continuing from "
        f"checkpoints (the default) is {float(plan.continue_speedup):.2f}x cheaper, restarting "
        f"every stage {float(plan.restart_speedup):.2f}x.",
        highlight=False,
    )


def _steps(planned: Fraction) -> str:
    """Planned steps, of which a part may be a fraction, to two places."""
    return f"{number(round(planned, 2)):,}"


def _print_later(plan: Plan, console: Console) -> None:
    genomes = ", ".join(f"{stage.name} {stage.genomes}" for stage in plan.stages)
    console.print(
        f"Each later generation trains only its {plan.population_size} newborn ({genomes}): "
        f"{_steps(plan.continue_steps)} steps, continuing from checkpoints.",
        highlight=False,
    )


def _print_derivations(config: Config, console: Console) -> None:
    share = number(round(100 * config.evolution.derive.share, 2))
    console.print(
        f"Scoring derived adapters costs at most {share:g} % of training in addition "
        "(evolution.derive.share). It is left out above, and they are left out below.",
        highlight=False,
    )


def _print_strategies(strategies: list[Strategy], metric: str, console: Console) -> None:
    table = Table(title="Three strategies, on simulated learning curves", title_justify="left")
    table.add_column("strategy")
    for name in ("genomes", "steps to train", "cheaper", f"best {metric}", "front"):
        table.add_column(name, justify="right")
    for strategy in strategies:
        table.add_row(
            strategy.strategy,
            str(strategy.genomes),
            f"{strategy.steps:,.0f}",
            ratio(strategy.step_ratio),
            figure(strategy.best, metric),
            str(strategy.front_size),
        )
    console.print(fitting(table))
    console.print("Simulated figures: they compare strategies, and do not predict a real run.")
