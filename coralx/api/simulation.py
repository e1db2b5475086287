"""The plan of a search and its price, and what the strategies would find on simulated curves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from coralx.api.earlier_runs import read_earlier_runs
from coralx.api.experience import experience_of
from coralx.config import Config
from coralx.config.mode import resolve_mode
from coralx.engine.engine import Engine
from coralx.engine.hypervolume_reference import reference_of
from coralx.execution.executor import StatusUpdate
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import RunStarted
from coralx.records.experience import Experience
from coralx.records.mode import Mode
from coralx.records.run_facts import Facts
from coralx.report.efficiency import efficiency_of
from coralx.schedule.cost import Plan, plan_of
from coralx.schedule.stages import by_length, stages_of
from coralx.storage.ledger import FORMAT, Ledger


def plan_for(config: Config, generation: int = 0) -> Plan:
    """The hyperband plan of one generation; one after the first trains its newborn alone.

    Raises ConfigError where neither data.steps_per_epoch nor data.limit tells an epoch's length.
    """
    simulated = resolve_mode(config, "simulation", None)
    facts = InProcessExecutor("simulated").start(simulated, None, _ignore)
    return plan_of(
        by_length(
            stages_of(config.hyperband_config.training_stages),
            facts.steps_per_epoch(config.batch_sizes[0]),
        ),
        config.evolution.births(generation),
        config.evolution.generations,
        facts.steps_per_epoch(config.training.batch_size),
        config.hyperband_config.brackets,
    )


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as `coralx simulate --json` prints it; steps are planned, so they may be fractions."""
    return {
        "population_size": plan.population_size,
        "generations": plan.generations,
        "steps_per_epoch": plan.steps_per_epoch,
        "naive_steps": number(plan.naive_steps),
        "restart_steps": number(plan.restart_steps),
        "continue_steps": number(plan.continue_steps),
        "restart_speedup": round(float(plan.restart_speedup), 4),
        "continue_speedup": round(float(plan.continue_speedup), 4),
        "stages": [
            {
                "name": stage.name,
                "genomes": stage.genomes,
                "data_percentage": number(100 * stage.data_fraction),
                "steps_per_genome": number(stage.steps_per_genome),
                "restart_steps": number(stage.restart_steps),
                "continue_steps": number(stage.continue_steps),
            }
            for stage in plan.stages
        ],
    }


def number(value: Any) -> int | float:
    """A fraction as a whole number if it is one."""
    return int(value) if value == int(value) else float(value)


@dataclass(frozen=True)
class Strategy:
    """One way to run the config, over all its generations, as the simulated backend sees it.

    `steps` are optimizer steps that it would train for real; `step_ratio` is how many times
    cheaper that is than training the same genomes to the end (None where nothing is trained);
    `best` is the best finished genome's figure on the first objective.
    """

    strategy: str
    genomes: int
    steps: float
    step_ratio: float | None
    best: float | None
    front_size: int


def planned_experience(config: Config) -> Experience | None:
    """What a run would take over from earlier ones, as far as the names of base and data tell how
    like they are. Raises as `read_earlier_runs` does, which takes simulated ones here."""
    earlier = read_earlier_runs(config.evolution.learn_from, is_simulated=True)
    simulated = resolve_mode(config, "simulation", None)
    facts = InProcessExecutor("simulated").start(simulated, None, _ignore)
    return experience_of(simulated, facts, earlier)


def compare_strategies(config: Config, experience: Experience | None = None) -> list[Strategy]:
    """`simulation`, `hyperband` and `full` side by side, played on simulated curves.

    Simulation and hyperband decide alike here, since both see the same curves; they differ in
    cost, and in that only training for real is evidence.
    """
    hyperband = _play(config, "simulation", experience)
    full = _play(config, "full", experience)
    # the same decisions, and nothing trained for them
    simulation = Strategy(
        "simulation", hyperband.genomes, 0.0, None, hyperband.best, hyperband.front_size
    )
    return [simulation, hyperband, full]


def _play(config: Config, mode: Mode, experience: Experience | None) -> Strategy:
    """One search in memory, on simulated curves. It derives nothing: strategies are compared by
    what they train."""
    derive = config.evolution.derive.model_copy(update={"share": Fraction(0)})
    evolution = config.evolution.model_copy(update={"derive": derive})
    config = config.model_copy(update={"evolution": evolution})
    resolved = resolve_mode(config, mode, "simulated")
    executor = InProcessExecutor("simulated")
    facts = executor.start(resolved, None, _ignore)
    ledger = Ledger()
    ledger.append(replace(_started(resolved, facts, executor), experience=experience))
    engine = Engine(resolved, facts, executor, ledger, None)
    front = engine.search()
    efficiency = efficiency_of(engine.state)
    first = config.objectives[0].metric
    last = engine.stages[-1].name
    return Strategy(
        strategy="full" if mode == "full" else "hyperband",
        genomes=efficiency["total_genomes"],
        steps=efficiency["actual_steps"],
        step_ratio=efficiency["step_ratio"],
        best=engine.history.results[front[0], last].metrics.get(first) if front else None,
        front_size=len(front),
    )


def _ignore(signal: StatusUpdate) -> None:
    """A plan has nobody to report to."""


def _started(config: Config, facts: Facts, executor: InProcessExecutor) -> RunStarted:
    box = reference_of(config, facts)
    return RunStarted(
        FORMAT, "plan", "simulation", 0, facts, executor.settings, {}, {}, 0.0, reference=box
    )
