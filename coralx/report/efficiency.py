"""What the search cost against training every genome to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from fractions import Fraction
from typing import Any

from coralx.engine.state import RunState
from coralx.records.genomes import Genome
from coralx.records.results import StageResult
from coralx.records.subjects import Baseline, FromScratch
from coralx.records.verdicts import Finish, Promote, Replace, Stop
from coralx.report.looks import looks_of
from coralx.report.naive_training import naive_training, steps_per_epoch
from coralx.schedule.stages import Stage
from coralx.storage.history import History
from coralx.storage.machine_time import MachineUse


def efficiency_of(state: RunState, use: MachineUse | None = None) -> dict[str, Any]:
    """The `efficiency` part of the report; times in seconds of workers, greater ratios are better.

    Naive is what `--mode full` does: every genome, but for copies of others, which only take a
    training up, is trained from scratch to the schedule's own last budget, or to the step where it
    diverged, and scored once, at its end. Its seconds come from each genome's own measured seconds
    per step, and from what scoring and saving took in the last stage; starting and the final
    measurement are added as they were. Against it stands what the same genomes have really cost:
    steps that were trained, every scoring, the same start and measurement, and what only this run
    paid: resumes, replaced workers, failed attempts, stages that were trained again for a lost
    checkpoint, deriving adapters. `beside_training` lists these. Where a genome that was cut would
    have diverged is inferred, see `naive_training`; what cannot be known counts as if it had not.

    Compared are the generations of which every genome's part is over, and nothing before a genome
    finished the last stage: until then the ratios are None, and `note` says why. `restart_steps` is
    what every stage from scratch would have cost them. Naive training has no derived genomes, so
    they only cost: `derivation_share` is that over what the stages took. `validation_looks` counts
    every scoring of a candidate, see `looks`. `utilisation` is the workers' busy seconds over those
    they were there, `gpu_hours` counts every GPU in use. A baseline, a verification and a head on
    the frozen base that were trained beside the search are counted apart; `head_time` has the
    head's measurement, and what was tried in vain, too.
    """
    history = state.history
    compared = _compared(history)
    by_stage = {stage.name: _results_of(history, stage) for stage in state.stages}
    everything = [result for results in by_stage.values() for result in results]
    counted = [result for result in everything if result.genome in compared]
    again = [result for result in history.restored if result.genome in compared]
    beside = _beside_training(history)
    shared = beside["start"] + beside["measuring"]
    own = sum(beside.values()) - beside["trained_again"]
    actual_steps = sum(result.steps for result in (*counted, *again))
    actual_seconds = sum(result.seconds for result in (*counted, *again)) + own
    naive = naive_training(state, counted) if compared else None
    naive_seconds = naive.seconds + shared if naive else None
    restart_steps = sum(_from_scratch(state, result) for result in counted)
    trained = sum(result.seconds for result in everything)
    deriving = beside["deriving"]
    busy = trained + sum(result.seconds for result in history.restored)
    return {
        "total_genomes": len({result.genome for result in everything}),
        "derived_genomes": len(_derived_results(history)),
        "compared_genomes": len({result.genome for result in counted}),
        "note": _note(history, compared),
        "stage_breakdown": {
            stage.name: _stage_row(state, stage, by_stage[stage.name]) for stage in state.stages
        },
        "beside_training": {name: round(seconds, 3) for name, seconds in beside.items()},
        "total_training_time": round(busy + own, 3),
        "compared_training_time": round(actual_seconds, 3),
        "estimated_full_training_time": _rounded(naive_seconds),
        "time_savings": _rounded(naive_seconds - actual_seconds if naive_seconds else None),
        "efficiency_ratio": _ratio(naive_seconds, actual_seconds),
        "naive_steps": naive.steps if naive else None,
        "actual_steps": actual_steps,
        "step_ratio": _ratio(naive.steps if naive else None, actual_steps),
        "restart_steps": restart_steps,
        "restart_step_ratio": _ratio(naive.steps if naive else None, restart_steps),
        "derivation_share": deriving / trained if trained else None,
        **looks_of(state),
        **_machine_use(history, busy + deriving, use),
    }


def _beside_training(history: History) -> dict[str, float]:
    """Seconds of workers beside the search's training and scoring. Those of a simulation are none:
    its start and its measurement take real time, and its training does not."""
    spent = history.overheads
    is_simulated = history.started is None or history.started.facts.device == "none"
    return {
        "start": 0.0 if is_simulated else spent.start,
        "measuring": spent.measuring,
        "restarts": 0.0 if is_simulated else spent.restarts,
        "measured_again": spent.measured_again,
        "failed_attempts": 0.0
        if is_simulated
        else sum(attempt.seconds for attempt in spent.attempts),
        "trained_again": sum(result.seconds for result in history.restored),
        "deriving": sum(result.seconds for result in _derived_results(history)),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _ratio(naive: float | None, actual: float) -> float | None:
    return naive / actual if naive is not None and actual else None


def _compared(history: History) -> set[str]:
    """The genomes of the generations that are decided to the end; none at all before a genome
    finished. Of a generation under way only those that were cut cheaply would count."""
    verdicts = [v for decision in history.decisions.values() for v in decision.verdicts]
    if not any(isinstance(verdict, Finish) for verdict in verdicts):
        return set()
    over = {verdict.genome for verdict in verdicts if not isinstance(verdict, Promote)}
    compared = set[str]()
    for genomes in history.generations.values():
        if _ids(genomes) <= over:
            compared |= _ids(genomes)
    return compared


def _ids(genomes: Sequence[Genome]) -> set[str]:
    return {genome.id for genome in genomes}


def _note(history: History, compared: Set[str]) -> str | None:
    """Why there is no ratio, or which generations it leaves out."""
    if not compared:
        return "no genome has finished the last stage yet, so there is nothing to compare"
    undecided = [
        str(generation + 1)
        for generation, genomes in history.generations.items()
        if not _ids(genomes) <= compared
    ]
    if not undecided:
        return None
    return f"without generation {', '.join(undecided)}, which is not decided yet"


def _from_scratch(state: RunState, result: StageResult) -> int:
    """Steps of the stage if the genome had begun anew with it."""
    if result.divergence is not None:
        return result.last_step
    generation = state.history.genomes[result.genome].generation
    place = next(s.place for s in state.stages if s.name == result.stage)
    epoch = steps_per_epoch(state.history, result.genome)
    return state.stages_in(generation)[place].trained_steps(epoch)


def _machine_use(history: History, busy_seconds: float, use: MachineUse | None) -> dict[str, Any]:
    if history.started is None or use is None or history.started.facts.device == "none":
        return {}  # simulated seconds say nothing about a machine
    baseline = list(history.baseline.values())
    beside = list(history.trained_beside.items())
    verification = [r for (subject, _), r in beside if isinstance(subject, FromScratch)]
    head = [r for (subject, _), r in beside if subject is Baseline.TRAINED_HEAD]
    busy = busy_seconds + sum(result.seconds for result in (*baseline, *verification, *head))
    head_seconds = sum(result.seconds for result in head) + history.overheads.head
    return {
        "utilisation": busy / use.worker_seconds if use.worker_seconds else None,
        "gpu_hours": use.gpu_seconds / 3600,
        "baseline_steps": sum(result.steps for result in baseline),
        "baseline_time": round(sum(result.seconds for result in baseline), 3),
        "verification_steps": sum(result.steps for result in verification),
        "verification_time": round(sum(result.seconds for result in verification), 3),
        "head_passes": sum(result.steps for result in head),
        "head_time": round(head_seconds, 3),
    }


def _results_of(history: History, stage: Stage) -> list[StageResult]:
    """Of the genomes that were trained through the stage."""
    return [
        result
        for (genome, name), result in history.results.items()
        if name == stage.name and history.genomes[genome].derived is None
    ]


def _derived_results(history: History) -> list[StageResult]:
    return [
        result
        for (genome, _), result in history.results.items()
        if history.genomes[genome].derived is not None
    ]


def _stage_row(state: RunState, stage: Stage, results: Sequence[StageResult]) -> dict[str, Any]:
    verdicts = [
        verdict
        for decision in state.history.decisions.values()
        if decision.stage == stage.name
        for verdict in decision.verdicts
    ]
    seconds = sum(result.seconds for result in results)
    return {
        "genomes_trained": len(results),
        "genomes_stopped": sum(isinstance(verdict, Stop) for verdict in verdicts),
        "genomes_promoted": sum(isinstance(v, Promote | Replace | Finish) for v in verdicts),
        "planned_steps": float(_planned(state, stage.place, results)),
        "trained_steps": sum(result.steps for result in results),
        "total_time": round(seconds, 3),
        "avg_time": round(seconds / len(results), 3) if results else None,
        "epoch_budget": float(stage.epoch_budget),
        "survival_rate": float(stage.survival_rate),
    }


def _planned(state: RunState, place: int, results: Sequence[StageResult]) -> Fraction:
    """What a stage was to add to the stage before, for all that entered it."""
    history = state.history
    alike = Counter(
        (history.genomes[r.genome].generation, steps_per_epoch(history, r.genome), r.first_step > 0)
        for r in results
    )
    added = Fraction(0)
    for (generation, epoch, continues), count in alike.items():
        stages = state.stages_in(generation)
        before = stages[place - 1].planned_steps(epoch) if continues else Fraction(0)
        added += count * (stages[place].planned_steps(epoch) - before)
    return added
