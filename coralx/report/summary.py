"""The report of a run: `report.json` and `pareto.csv`, from config and ledger alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from coralx.config import Config
from coralx.errors import DamagedRunError
from coralx.events import RunResumed, RunStarted, StageDecided, WorkerStarted, WorkerStopped
from coralx.records import Cut, Genome, Interval, Stop
from coralx.report.efficiency import efficiency_of
from coralx.run.history import History
from coralx.run.layout import RunLayout
from coralx.run.ledger import Entry
from coralx.schedule.stages import Stage, schedule_of
from coralx.search.pareto import as_minimised, front
from coralx.search.space import default_recipe, space_of


def summarise(config: Config, entries: Sequence[Entry], layout: RunLayout | None) -> dict[str, Any]:
    """The content of `report.json`. Times are seconds, undefined figures None.

    `layout` tells which adapters are still there. Raises DamagedRunError for a ledger that does
    not begin with its first event.
    """
    history = History(entry.event for entry in entries)
    started = history.started
    if started is None:
        raise DamagedRunError("the ledger does not begin with its first event")
    stages = schedule_of(config.hyperband_config)
    members = _front_of(config, history, stages)
    return {
        "run": started.run,
        "mode": started.mode,
        "seed": started.seed,
        "completed": history.completed is not None,
        "backend": started.facts.backend,
        "backend_reason": started.facts.backend_reason,
        "device": started.facts.device,
        "precision": started.facts.precision,
        "versions": dict(started.versions),
        "hardware": dict(started.hardware),
        "generations": len(history.populations),
        "population_size": config.evolution.population_size,
        "rows": dict(started.facts.rows),
        "wall_seconds": wall_seconds(entries),
        "objectives": [
            {"metric": objective.metric, "direction": objective.direction}
            for objective in config.objectives
        ],
        "baselines": _baselines(config, history, stages[-1].name),
        "front": [_member(history, genome, layout) for genome in members],
        "provisional": [
            _member(history, genome, layout) for genome in _provisional(config, history, stages)
        ],
        "efficiency": efficiency_of(history, stages),
        "stopped": _stopped(history),
        "failed": [
            {"genome": failure.genome, "stage": failure.stage, "reason": failure.reason}
            for failure in history.failures.values()
        ],
        "warnings": _warnings(entries),
        "workers": _workers(entries),
    }


def wall_seconds(entries: Sequence[Entry]) -> float:
    """Seconds that the run's processes were at work, over all resumes."""
    total, begin = 0.0, None
    for previous, entry in zip((None, *entries), entries, strict=False):
        if isinstance(entry.event, RunStarted | RunResumed):
            if begin is not None and previous is not None:
                total += previous.timestamp - begin
            begin = entry.timestamp - entry.event.startup_seconds
    if begin is not None:
        total += entries[-1].timestamp - begin
    return round(total, 3)


def _front_of(config: Config, history: History, stages: Sequence[Stage]) -> list[str]:
    """The recorded front, or while the run goes on the front so far; best first."""
    if history.completed is not None:
        return list(history.completed.front)
    return _non_dominated(config, history, history.finished(stages[-1].name), stages[-1].name)


def _non_dominated(
    config: Config, history: History, genomes: Sequence[str], stage: str
) -> list[str]:
    figures = [history.results[genome, stage].metrics for genome in genomes]
    points = as_minimised(figures, config.objectives)
    firsts = dict(zip(genomes, points[:, 0], strict=True))
    return sorted(front(genomes, points), key=lambda genome: (firsts[genome], genome))


def _provisional(config: Config, history: History, stages: Sequence[Stage]) -> list[str]:
    """Genomes that were cut before the last stage and that no other cut there dominates,
    furthest stage first."""
    found: list[str] = []
    for stage in reversed(stages[:-1]):
        cut = [
            verdict.genome
            for decision in history.decisions.values()
            if decision.stage == stage.name
            for verdict in decision.verdicts
            if isinstance(verdict, Cut)
        ]
        found += _non_dominated(config, history, cut, stage.name)
    return found


def genes_of(genome: Genome) -> dict[str, Any]:
    """A genome's genes as written into reports, alpha beside its ratio."""
    genes = asdict(genome.genes)
    modules = genes["target_modules"]
    return {
        **genes,
        "alpha": genome.genes.alpha,
        "target_modules": modules if isinstance(modules, str) else list(modules),
    }


def _member(history: History, genome_id: str, layout: RunLayout | None) -> dict[str, Any]:
    genome = history.genomes[genome_id]
    result = history.last_result(genome_id)
    measured = history.measurements.get(genome_id)
    stage = result.stage if result else ""
    return {
        "genome": genome_id,
        "generation": genome.generation,
        "parents": list(genome.parents),
        "inherits": genome.inherits,
        "genes": genes_of(genome),
        "stage": stage,
        "validation": dict(result.metrics) if result else {},
        "test": {name: _interval(figure) for name, figure in measured.test.items()}
        if measured
        else None,
        "own_steps": history.own_steps(genome_id),
        "lineage_steps": history.lineage_steps(genome_id),
        "adapter": _adapter(layout, genome_id, stage),
    }


def _interval(figure: Interval) -> dict[str, float | None]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def _adapter(layout: RunLayout | None, genome: str, stage: str) -> str | None:
    """Where the adapter lies in the run folder: handed over, else its checkpoint, else nowhere."""
    if layout is None:
        return None
    for folder in (layout.best_adapter(genome), layout.checkpoint(genome, stage)):
        if (folder / "adapter_model.safetensors").is_file():
            return layout.relative(folder)
    return None


def _baselines(config: Config, history: History, last: str) -> dict[str, Any]:
    """Test figures of the untuned base, and of the default recipe if it finished."""

    def figures(genome: str | None) -> dict[str, float | None] | None:
        measured = history.measurements.get(genome)
        return {name: f.value for name, f in measured.test.items()} if measured else None

    recipe = default_recipe(space_of(config))
    default = next((g for g in history.finished(last) if history.genomes[g].genes == recipe), None)
    return {
        "untuned": figures(None),
        "default_recipe": figures(default) if default is not None else None,
    }


def _stopped(history: History) -> list[dict[str, Any]]:
    return [
        {
            "genome": verdict.genome,
            "stage": decision.stage,
            "step": verdict.step,
            "rule": verdict.rule,
            "value": verdict.value,
        }
        for decision in history.decisions.values()
        for verdict in decision.verdicts
        if isinstance(verdict, Stop)
    ]


def _warnings(entries: Sequence[Entry]) -> list[str]:
    found: list[str] = []
    for entry in entries:
        if isinstance(entry.event, RunStarted):
            found += entry.event.facts.warnings
        if isinstance(entry.event, StageDecided):
            where = f"generation {entry.event.generation}, {entry.event.stage}: "
            found += [where + warning for warning in entry.event.warnings]
    return found


def _workers(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every worker process, with how often it loaded the base model and how many jobs it did."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry.event, WorkerStarted):
            rows.append({**asdict(entry.event), "jobs": None})
        if isinstance(entry.event, WorkerStopped):
            for row in reversed(rows):
                if row["worker"] == entry.event.worker:
                    row.update(base_loads=entry.event.base_loads, jobs=entry.event.jobs)
                    break
    return rows


def pareto_csv(report: dict[str, Any]) -> str:
    """The front as a table: genome, genes, then each objective on validation and test."""
    metrics = [objective["metric"] for objective in report["objectives"]]
    genes = list(report["front"][0]["genes"]) if report["front"] else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{split}_{metric}" for metric in metrics for split in ("validation", "test")]
    writer.writerow(["genome", "generation", *genes, *columns, "own_steps", "lineage_steps"])
    for member in report["front"]:
        values = []
        for metric in metrics:
            test = (member["test"] or {}).get(metric) or {}
            values += [member["validation"].get(metric), test.get("value")]
        listed = [
            " ".join(value) if isinstance(value, list) else value
            for value in member["genes"].values()
        ]
        steps = (member["own_steps"], member["lineage_steps"])
        writer.writerow([member["genome"], member["generation"], *listed, *values, *steps])
    return text.getvalue()
