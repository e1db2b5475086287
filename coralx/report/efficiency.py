"""What the search cost against training every genome to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import fmean
from typing import Any

from coralx.results import StageResult
from coralx.run.history import History, origin_of
from coralx.run.timetable import Timetable
from coralx.run.usage import MachineUse
from coralx.schedule.stages import Stage
from coralx.verdicts import Finish, Promote, Replace, Stop


def efficiency_of(
    history: History, timetable: Timetable, use: MachineUse | None = None
) -> dict[str, Any]:
    """The `efficiency` part of the report; times in seconds, greater ratios are better.

    Naive is every genome trained to the last stage's budget, but for copies of others, which only
    take a training up. Its seconds come from each genome's
    own measured seconds per step; evaluation and overhead (loading and saving) are counted on both
    sides, at the mean that each stage showed. `actual_steps` continue from checkpoints;
    `restart_steps` is what every stage from scratch would have cost. `utilisation` is the workers'
    busy seconds over those they were there, `gpu_hours` counts every GPU in use. A baseline and a
    verification that were trained beside the search are counted apart.
    """
    started = history.started
    batch_sizes = {g: genome.genes.batch_size for g, genome in history.genomes.items()}
    epochs = (
        {g: started.facts.steps_per_epoch(b) for g, b in batch_sizes.items()} if started else {}
    )
    stages = timetable.stages
    by_stage = {stage.name: _results_of(history, stage) for stage in stages}
    trained = {r.genome for results in by_stage.values() for r in results}
    rows = {}
    restart_steps = Fraction(0)
    for stage in stages:
        results = by_stage[stage.name]
        rows[stage.name] = _stage_row(history, stage, results)
        added, total = _planned(history, timetable, stage.place, results, epochs)
        rows[stage.name]["planned_steps"] = added
        restart_steps += total
    actual_seconds = sum(r.seconds for results in by_stage.values() for r in results)
    naive_seconds = _naive_seconds(history, by_stage, timetable, epochs)
    born = [history.genomes[genome] for genome in trained if not history.genomes[genome].continues]
    lengths = Counter((genome.generation, epochs[genome.id]) for genome in born)
    naive_steps = sum(
        (n * timetable.of(g)[-1].planned_steps(e) for (g, e), n in lengths.items()), Fraction(0)
    )
    actual_steps = sum((row["planned_steps"] for row in rows.values()), Fraction(0))
    for row in rows.values():
        row["planned_steps"] = float(row["planned_steps"])
    return {
        "total_genomes": len(trained),
        "stage_breakdown": rows,
        "total_training_time": round(actual_seconds, 3),
        "estimated_full_training_time": round(naive_seconds, 3),
        "time_savings": round(naive_seconds - actual_seconds, 3),
        "efficiency_ratio": naive_seconds / actual_seconds if actual_seconds else None,
        "naive_steps": float(naive_steps),
        "actual_steps": float(actual_steps),
        "step_ratio": float(naive_steps / actual_steps) if actual_steps else None,
        "restart_steps": float(restart_steps),
        "restart_step_ratio": float(naive_steps / restart_steps) if restart_steps else None,
        **_machine_use(history, actual_seconds, use),
    }


def _machine_use(history: History, busy_seconds: float, use: MachineUse | None) -> dict[str, Any]:
    if history.started is None or use is None or history.started.facts.device == "none":
        return {}  # simulated seconds say nothing about a machine
    baseline = list(history.baseline.values())
    verification = [r for (name, _), r in history.beside.items() if origin_of(name)]
    busy = busy_seconds + sum(result.seconds for result in (*baseline, *verification))
    return {
        "utilisation": busy / use.worker_seconds if use.worker_seconds else None,
        "gpu_hours": use.gpu_seconds / 3600,
        "baseline_steps": sum(result.steps for result in baseline),
        "baseline_time": round(sum(result.seconds for result in baseline), 3),
        "verification_steps": sum(result.steps for result in verification),
        "verification_time": round(sum(result.seconds for result in verification), 3),
    }


def _results_of(history: History, stage: Stage) -> list[StageResult]:
    return [result for (_, name), result in history.results.items() if name == stage.name]


def _planned(
    history: History,
    timetable: Timetable,
    place: int,
    results: Sequence[StageResult],
    epochs: Mapping[str, int],
) -> tuple[Fraction, Fraction]:
    """Planned steps of a stage's results: what they add to the stage before, and from scratch."""
    added = total = Fraction(0)
    alike = Counter(
        (history.genomes[r.genome].generation, epochs[r.genome], r.first_step > 0) for r in results
    )
    for (generation, length, continues), count in alike.items():
        stages = timetable.of(generation)
        steps = stages[place].planned_steps(length)
        before = stages[place - 1].planned_steps(length) if continues else Fraction(0)
        added += count * (steps - before)
        total += count * steps
    return added, total


def _stage_row(history: History, stage: Stage, results: Sequence[StageResult]) -> dict[str, Any]:
    verdicts = [
        verdict
        for decision in history.decisions.values()
        if decision.stage == stage.name
        for verdict in decision.verdicts
    ]
    seconds = sum(result.seconds for result in results)
    return {
        "genomes_trained": len(results),
        "genomes_stopped": sum(isinstance(verdict, Stop) for verdict in verdicts),
        "genomes_promoted": sum(isinstance(v, Promote | Replace | Finish) for v in verdicts),
        "planned_steps": Fraction(0),
        "trained_steps": sum(result.steps for result in results),
        "total_time": round(seconds, 3),
        "avg_time": round(seconds / len(results), 3) if results else None,
        "epoch_budget": float(stage.epoch_budget),
        "survival_rate": float(stage.survival_rate),
    }


def _naive_seconds(
    history: History,
    by_stage: Mapping[str, Sequence[StageResult]],
    timetable: Timetable,
    epochs: Mapping[str, int],
) -> float:
    """Seconds that training every genome through all stages would have taken."""
    beside_training = sum(
        fmean(r.eval_seconds + r.overhead_seconds for r in results)
        for results in by_stage.values()
        if results
    )
    seconds: dict[str, float] = {}
    steps: dict[str, int] = {}
    for result in (r for results in by_stage.values() for r in results):
        seconds[result.genome] = seconds.get(result.genome, 0.0) + result.train_seconds
        steps[result.genome] = steps.get(result.genome, 0) + result.steps
    budgets: dict[tuple[int, int], int] = {}
    total = 0.0
    for genome, spent in seconds.items():
        if history.genomes[genome].continues is not None:
            continue
        pace = spent / steps[genome] if steps[genome] else 0.0
        key = history.genomes[genome].generation, epochs[genome]
        if key not in budgets:
            budgets[key] = timetable.of(key[0])[-1].trained_steps(key[1])
        total += pace * budgets[key] + beside_training
    return total
