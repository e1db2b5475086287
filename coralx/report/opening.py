"""The first lines of a run: the machine, the data, and what the plan will cost."""

from __future__ import annotations

from fractions import Fraction

from coralx.config import Config
from coralx.engine.budget import budget_warnings
from coralx.engine.derivation import derives, least_trained_rank
from coralx.engine.rung_estimates import are_adaptive
from coralx.engine.state import RunState
from coralx.records.events import RunStarted
from coralx.records.run_facts import Facts
from coralx.records.subjects import RECIPES, title_of
from coralx.report.classes import class_lines, classes_of
from coralx.report.experience import experience_json, experience_lines
from coralx.report.priors import prior_lines
from coralx.report.rungs import ADAPTIVE_RUNGS
from coralx.schedule.brackets import brackets_of
from coralx.schedule.cost import plan_of
from coralx.schedule.plan_warnings import schedule_caveats
from coralx.schedule.short_stage_warnings import short_stage_warnings
from coralx.storage.history import History
from coralx.text import counted


def opening_lines(config: Config, event: RunStarted) -> list[str]:
    """The facts and settings that a run starts with, and what its plan will cost."""
    facts, settings = event.facts, event.settings
    rows = ", ".join(f"{count:,} {kind}" for kind, count in facts.rows.items() if count)
    workers = counted(settings.workers, "worker")
    threads = counted(settings.threads_per_worker, "thread")
    threads += " each" if settings.workers > 1 else ""
    sharing = facts.footprint.sharing if facts.footprint is not None else 1
    threads += f", {sharing} to a GPU" if sharing > 1 else ""
    device = "" if facts.device == "none" else f" on {facts.device}"
    return [
        f"run {event.run}: {event.mode}, seed {event.seed}; backend {facts.backend} "
        f"({facts.backend_reason}){device}, {workers} with {threads}",
        f"rows: {rows}; precision {facts.precision} ({facts.precision_reason})",
        *_checkpointing_lines(facts),
        *_pack_lines(event),
        *class_lines(config.model.task, classes_of(config, facts)),
        *experience_lines(experience_json(event.experience)),
        *prior_lines(RunState(config, History([event])).space),
        *_plan_lines(config, event),
        *(
            f"warning: {warning}"
            for warning in (
                *_schedule_warnings(config, event),
                *budget_warnings(config.budget, facts.device),
                *facts.warnings,
            )
        ),
    ]


def _checkpointing_lines(facts: Facts) -> list[str]:
    """Whether gradients are checkpointed, where a GPU's memory has a say in it."""
    if facts.footprint is None or not facts.checkpointing_reason:
        return []
    state = "on" if facts.footprint.checkpointing else "off"
    return [f"gradient checkpointing {state}: {facts.checkpointing_reason}"]


def _pack_lines(event: RunStarted) -> list[str]:
    """How many genomes are trained together, where several are."""
    if event.settings.pack == 1:
        return []
    reason = f": {event.facts.pack_reason}" if event.facts.pack_reason else ""
    return [f"up to {event.settings.pack} genomes together{reason}"]


def _schedule_warnings(config: Config, event: RunStarted) -> list[str]:
    # runs of earlier versions scored and cut at every stage, however short it was
    run = RunState(config, History([event]))
    if run.longest_epoch is None:
        return []
    rows, singly = event.facts.rows["train"], run.succession.overlaps
    return [*schedule_caveats(config, rows, singly=singly), *short_stage_warnings(config, rows)]


def _plan_lines(config: Config, event: RunStarted) -> list[str]:
    """What training will cost if no stop rule takes a genome out."""
    evolution, schedule = config.evolution, config.hyperband_config
    state = RunState(config, History([event]))
    stages = state.stages
    brackets = brackets_of(schedule)
    steps = event.facts.steps_per_epoch(config.training.batch_size)
    births = [evolution.births(generation) for generation in range(evolution.generations)]
    plans = [plan_of(stages, count, len(births), steps, brackets) for count in births]
    plan = plans[0]
    cohorts = ", ".join(
        f"{stage.name} {stage.genomes} x {float(stage.steps_per_genome):,.6g}"
        for stage in plan.stages
    )
    later = f" ({births[-1]} newborn in each later one)" if births[-1] < births[0] else ""
    naive = sum((each.naive_steps for each in plans), Fraction(0))
    total = sum((each.continue_steps for each in plans), Fraction(0))
    restarted = sum((each.restart_steps for each in plans), Fraction(0))
    every = "the only genome" if sum(births) == 1 else f"all {sum(births)} genomes"
    lines = [
        f"plan: {counted(plan.generations, 'generation')}, in each (genomes x total steps): "
        f"{cohorts}{later}",
        f"      {float(total):,.6g} steps in all instead of {float(naive):,.6g} for training "
        f"{every} to the end ({float(naive / total):.2f}x cheaper; {float(naive / restarted):.2f}x "
        f"if every stage restarted); {counted(steps, 'step')} per epoch",
    ]
    if are_adaptive(state):
        lines.append(f"      {ADAPTIVE_RUNGS}")
    whole_training = f"{float(plan.stages[-1].steps_per_genome):,.6g} steps"
    if derives(state):
        share = 100 * config.evolution.derive.share
        lines.append(
            f"      and at most {float(share):.3g} % of the training time for adapters derived "
            "without training"
        )
    least = least_trained_rank(state, event.facts)
    if least is not None:
        lines.append(f"      ranks from {least} on are trained; lower ones are cut from these")
    if config.runtime.baseline:
        known = [recipe for recipe in RECIPES if state.recipe_of(recipe) is not None]
        lines += [
            f"      and up to {whole_training} for the {title_of(recipe.value)}" for recipe in known
        ]
    if config.runtime.verify_front:
        lines.append(f"      and {whole_training} for each genome that is verified")
    return lines
