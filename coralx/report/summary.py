"""The report of a run, `report.json`, from config and ledger alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from coralx.config import Config
from coralx.config.warnings import measurement_warnings, remote_code_warnings
from coralx.engine.budget import budget_warnings
from coralx.engine.convergence import has_stalled, indicators
from coralx.engine.state import RunState
from coralx.errors import DamagedRunError
from coralx.records.derivations import derivation_json
from coralx.records.events import (
    GenerationStarted,
    RunStarted,
    StageDecided,
    WorkerStarted,
    WorkerStopped,
)
from coralx.records.genomes import Genome
from coralx.records.results import Interval
from coralx.records.subjects import RECIPES, Baseline, Subject, id_of
from coralx.records.verdicts import Stop
from coralx.report.baseline_names import untuned_head
from coralx.report.choice import choice_of
from coralx.report.classes import classes_of
from coralx.report.efficiency import efficiency_of
from coralx.report.experience import experience_json
from coralx.report.front_comparison import against_baselines, front_pairs
from coralx.report.front_warnings import (
    feasibility_warnings,
    undefined_warnings,
    unmeasured_warning,
)
from coralx.report.hypervolume_reference import reference_json
from coralx.report.lineage import blends_of, growth_of, lineage_of, schedule_of
from coralx.report.operating_points import operating_point_warnings
from coralx.report.profile import profile_of
from coralx.report.rung_figures import rungs_of
from coralx.report.rungs import misleading_warnings
from coralx.report.verification import verification_of
from coralx.report.vllm import serving_of
from coralx.report.weighted_sum import weighted
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Entry
from coralx.storage.machine_time import machine_use


def summarise(config: Config, entries: Sequence[Entry], layout: RunLayout | None) -> dict[str, Any]:
    """The content of `report.json`. Times are seconds, undefined figures None.

    `layout` tells which adapters are still there. Raises DamagedRunError for a ledger that does
    not begin with its first event.
    """
    history = History(entry.event for entry in entries)
    started = history.started
    if started is None:
        raise DamagedRunError("the ledger does not begin with its first event")
    state = RunState(config, history)
    use = machine_use(entries)
    members = _front(state)
    front = [_member(state, genome, layout) for genome in members]
    objectives = [{"metric": o.metric, "direction": o.direction} for o in config.objectives]
    weights = config.weights
    rungs = rungs_of(state)
    return {
        "run": started.run,
        "mode": started.mode,
        "simulated": started.facts.backend == "simulated",
        "seed": started.seed,
        "completed": history.completed is not None,
        "ended_by": history.budget_spent,
        "test_reused": history.is_test_reused,
        "backend": started.facts.backend,
        "backend_reason": started.facts.backend_reason,
        "device": started.facts.device,
        "precision": started.facts.precision,
        "versions": dict(started.versions),
        "hardware": dict(started.hardware),
        "generations": len(history.populations),
        "population_size": config.evolution.population_size,
        "rows": dict(started.facts.rows),
        "task": config.model.task,
        "classes": classes_of(config, started.facts),
        "experience": experience_json(started.experience, history.generations.get(0, ())),
        "wall_seconds": use.wall_seconds,
        "objectives": objectives,
        "constraints": list(config.constraints),
        "functions": list(config.functions),
        "untuned_head": untuned_head(config, started.facts),
        "baselines": _baselines(state),
        "front": front,
        "choice": choice_of(state, members),
        "vllm": serving_of(config, front),
        "weighted": None if weights is None else weighted(front, objectives, weights),
        "front_pairs": front_pairs(history, members),
        "front_against_baselines": against_baselines(state, members),
        "verification": verification_of(state, members, layout),
        "provisional": [_member(state, genome, layout) for genome in _provisional(state)],
        "convergence": [asdict(figures) for figures in indicators(state)],
        "hypervolume_reference": reference_json(started.reference),
        "stalled": has_stalled(state),
        "efficiency": efficiency_of(state, use),
        "rungs": rungs,
        "blends": blends_of(history),
        "stopped": _stopped(history),
        "not_judged": [
            {"stage": decision.stage, "generation": decision.generation, "genome": genome}
            for decision in history.decisions.values()
            for genome in decision.not_judged
        ],
        "failed": _failed(history),
        "not_measured": [
            {"genome": id_of(subject), "reason": reason}
            for subject, reason in history.unmeasured.items()
        ],
        "lineage": lineage_of(history),
        "notes": _notes(history),
        "warnings": [
            *remote_code_warnings(config),
            *measurement_warnings(config),
            *budget_warnings(config.budget, started.facts.device),
            *_warnings(entries),
            *(misleading_warnings(rungs) if history.revision > 2 else ()),
            *undefined_warnings(state),
            *operating_point_warnings(history),
            *feasibility_warnings(state, members),
            *(unmeasured_warning(id_of(s), reason) for s, reason in history.unmeasured.items()),
        ],
        "workers": _workers(entries),
        "profile": profile_of(history, entries),
    }


def _front(state: RunState) -> tuple[str, ...]:
    """The recorded front, or while the run goes on the front so far; best first."""
    completed = state.history.completed
    return completed.front if completed is not None else state.front()


def _provisional(state: RunState) -> list[str]:
    """Genomes that stand at a stage before the last, were not taken out, and are not dominated by
    another that stands there; furthest stage first. A stage that is not scored has none."""
    history, stages = state.history, state.stages
    reached: dict[str, list[str]] = {stage.name: [] for stage in stages}
    for genome in history.genomes:
        result = history.last_result(genome)
        if result is not None and not history.is_taken_out(genome):
            reached[result.stage].append(genome)
    return [
        genome
        for stage in reversed(stages[:-1])
        if stage.is_scored
        for genome in state.non_dominated(reached[stage.name], stage.name)
    ]


def genes_of(genome: Genome) -> dict[str, Any]:
    """A genome's genes as written into reports, with alpha itself as well as its ratio."""
    genes = asdict(genome.genes)
    modules = genes["target_modules"]
    return {
        **genes,
        "alpha": genome.genes.alpha,
        "target_modules": modules if isinstance(modules, str) else list(modules),
    }


def _member(state: RunState, genome_id: str, layout: RunLayout | None) -> dict[str, Any]:
    history = state.history
    genome = history.genomes[genome_id]
    result = history.last_result(genome_id)
    measured = history.measured(genome_id)
    stage = result.stage if result else ""
    return {
        "genome": genome_id,
        "generation": genome.generation,
        "parents": list(genome.parents),
        "inherits": genome.inherits,
        "inheritance": _inheritance(history, genome_id),
        "derived": derivation_json(genome.derived),
        "growth": growth_of(history, genome_id),
        "schedule": schedule_of(history, genome_id, state.stages),
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


def _inheritance(history: History, genome: str) -> dict[str, Any] | None:
    """What became of the parent's function when the genome took its weights over."""
    found = [r.inheritance for r in history.results_of(genome) if r.inheritance]
    return asdict(found[0]) if found else None


def _interval(figure: Interval) -> dict[str, Any]:
    return asdict(figure)


def _adapter(layout: RunLayout | None, genome: str, stage: str) -> str | None:
    """Where the adapter lies in the run folder: in `best/`, else its checkpoint, else None."""
    if layout is None:
        return None
    folders = [layout.best_adapter(genome)]
    if stage:
        folders.append(layout.checkpoint(genome, stage))
    for folder in folders:
        if (folder / "adapter_model.safetensors").is_file():
            return layout.relative(folder)
    return None


def _baselines(state: RunState) -> dict[str, Any]:
    """Test figures of the untuned base, of a head trained on it where it is a classifier's, and of
    the default recipe and the priors' centre if they finished."""

    history = state.history

    def figures(subject: Subject) -> dict[str, float | None] | None:
        measured = history.measurements.get(subject)
        return {name: f.value for name, f in measured.test.items()} if measured else None

    finishers = state.finishers()
    trains_head = history.started is not None and history.started.facts.trains_head
    return {
        "untuned": figures(Baseline.UNTUNED),
        **({"trained_head": figures(Baseline.TRAINED_HEAD)} if trains_head else {}),
        **{
            recipe.name.lower(): figures(finishers[recipe]) if recipe in finishers else None
            for recipe in RECIPES
            if state.recipe_of(recipe) is not None
        },
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


def _failed(history: History) -> list[dict[str, Any]]:
    """Whoever brought no result on any attempt. Of a derivation the stage is "derivation"."""
    trained = [(f.genome, f.stage, f.reason) for f in history.failures.values()]
    derived = [(f.genome.id, "derivation", f.reason) for f in history.not_derived.values()]
    return [
        {"genome": genome, "stage": stage, "reason": reason}
        for genome, stage, reason in (*trained, *derived)
    ]


def _notes(history: History) -> list[dict[str, Any]]:
    """Remarks on how genomes were trained, each once, with the genomes that it is about."""
    genomes_by_note: dict[str, list[str]] = {}
    for (genome, _), result in history.results.items():
        for note in result.notes:
            genomes = genomes_by_note.setdefault(note, [])
            if genome not in genomes:
                genomes.append(genome)
    if skipped := [result for result in history.results.values() if result.skipped_steps]:
        steps = sum(result.steps for result in history.results.values())
        note = (
            f"{sum(result.skipped_steps for result in skipped):,} of {steps:,} steps were skipped "
            "because a gradient overflowed in fp16"
        )
        genomes_by_note[note] = list(dict.fromkeys(result.genome for result in skipped))
    return [{"note": note, "genomes": genomes} for note, genomes in genomes_by_note.items()]


def _warnings(entries: Sequence[Entry]) -> list[str]:
    """Those that the run gave as it went on, with the generation and stage that they are about."""
    warnings: list[str] = []
    for entry in entries:
        if isinstance(entry.event, RunStarted):
            warnings += entry.event.facts.warnings
        if isinstance(entry.event, GenerationStarted):
            where = f"generation {entry.event.generation + 1}: "
            warnings += [where + warning for warning in entry.event.warnings]
        if isinstance(entry.event, StageDecided):
            where = f"generation {entry.event.generation + 1}, {entry.event.stage}: "
            warnings += [where + warning for warning in entry.event.warnings]
    return warnings


def _workers(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every worker process, with how often it loaded the base model and how many jobs it did."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry.event, WorkerStarted):
            rows.append({**asdict(entry.event), "jobs": None})
        if isinstance(entry.event, WorkerStopped):
            # a replacement, and a resume, use a number again: the latest row has stopped
            for row in reversed(rows):
                if row["worker"] == entry.event.worker:
                    row.update(base_loads=entry.event.base_loads, jobs=entry.event.jobs)
                    break
    return rows
