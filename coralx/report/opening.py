"""The first lines of a run: the machine, the data, and the plan before it is paid."""

from __future__ import annotations

from coralx.config import Config
from coralx.events import RunStarted
from coralx.schedule.brackets import brackets_of
from coralx.schedule.cost import plan_of
from coralx.schedule.stages import schedule_of


def opening_lines(config: Config, event: RunStarted) -> list[str]:
    """What was found and chosen at the start, and what is about to be paid."""
    facts, settings = event.facts, event.settings
    rows = ", ".join(
        f"{facts.rows[split]:,} {split}"
        for split in ("train", "validation", "test")
        if facts.rows.get(split)
    )
    workers = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
    return [
        f"run {event.run}: {event.mode}, seed {event.seed}; backend {facts.backend} "
        f"({facts.backend_reason}) on {facts.device}, {workers} of "
        f"{settings.threads_per_worker} thread(s)",
        f"rows: {rows}; precision {facts.precision} ({facts.precision_reason})",
        *_plan_lines(config, event),
        *(f"warning: {warning}" for warning in facts.warnings),
    ]


def _plan_lines(config: Config, event: RunStarted) -> list[str]:
    """What is about to be paid, if no stop rule takes a genome out."""
    population = config.evolution.population_size
    steps = event.facts.steps_per_epoch(config.training.batch_size)
    plan = plan_of(
        schedule_of(config.hyperband_config),
        population,
        config.evolution.generations,
        steps,
        brackets_of(config.hyperband_config),
    )
    stages = ", ".join(
        f"{stage.name} {stage.genomes} x {float(stage.steps_per_genome):,.6g}"
        for stage in plan.stages
    )
    total = float(plan.continue_steps) * plan.generations
    return [
        f"plan: {plan.generations} generations, in each (genomes x total steps): {stages}",
        f"      {total:,.6g} steps together, {float(plan.naive_steps) * plan.generations:,.6g} if "
        f"all {population * plan.generations} genomes were trained to the end "
        f"({float(plan.continue_speedup):.2f}x; {float(plan.restart_speedup):.2f}x if every stage "
        f"restarted); {steps:,} steps an epoch",
        *(
            [f"      and up to {float(plan.stages[-1].steps_per_genome):,.6g} for the baseline"]
            if config.runtime.baseline
            else []
        ),
        *(
            [f"      and {float(plan.stages[-1].steps_per_genome):,.6g} for each that is verified"]
            if config.runtime.verify_front
            else []
        ),
    ]
