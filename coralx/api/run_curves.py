"""Learning curves of CoralX's own runs: what their ledgers know of each genome, stage by stage.

Genomes that were cut have no full result, and one that began with another's weights shows nothing
of how well a stage ranks. So those count that began anew and finished, or diverged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from coralx.api.earlier_runs import EarlierRun
from coralx.api.quality import EVAL_LOSS, LOSSES, TRAIN_LOSS, Quality
from coralx.config.metric_catalogue import standard_error_name
from coralx.engine.state import RunState
from coralx.errors import UsageError
from coralx.records.genomes import Genome
from coralx.records.results import StageResult
from coralx.schedule.stages import Stage
from coralx.schedule.tuning_curves import LOSS, METRIC, TRAINING, CurveTable, Signal
from coralx.text import counted


@dataclass(frozen=True)
class MeasuredPrices:
    """What scoring and each stage's rest took in runs, against training on a row."""

    evaluation: float
    overhead: float
    runs: int


def run_tables(
    runs: Sequence[EarlierRun], quality: Quality, tolerance: float | None
) -> list[CurveTable]:
    """A table for each kind of run: those with the same base, data and stages count as one.

    Raises UsageError where a run does not have the metric.
    """
    within = quality.tolerance if tolerance is None else tolerance
    if within is None:
        raise UsageError(
            f"what loss of {quality.name!r} is as good as none is not known",
            "Say it in the metric's unit: --tolerance NUMBER.",
        )
    alike: dict[object, list[EarlierRun]] = {}
    for run in runs:
        facts = run.facts
        key = (facts.base_fingerprint, facts.data_fingerprint, facts.fingerprint, _ends(run))
        alike.setdefault(key, []).append(run)
    return [_table(members, quality, within) for members in alike.values()]


def _ends(run: EarlierRun) -> tuple[Fraction, ...]:
    """Where the stages that are scored end, as shares of a whole training."""
    return tuple(_share(run, stage) for stage in _scored(run))


def _share(run: EarlierRun, stage: Stage) -> Fraction:
    return stage.planned_steps(1) / _stages(run)[-1].planned_steps(1)


def _stages(run: EarlierRun) -> Sequence[Stage]:
    return RunState(run.config, run.history).stages


def _scored(run: EarlierRun) -> list[Stage]:
    return [stage for stage in _stages(run) if stage.is_scored]


def _table(runs: Sequence[EarlierRun], quality: Quality, tolerance: float) -> CurveTable:
    names, full, cut, inherited = list[str](), list[float](), 0, 0
    curves = list[list[StageResult | None]]()
    for run in runs:
        last = _stages(run)[-1].name
        for genome in _begun(run):
            result = run.history.results.get((genome.id, last))
            if genome.donors:
                inherited += 1
            elif result is None and not _has_diverged(run, genome):
                cut += 1
            else:
                names.append(f"{run.layout.name}/{genome.id}")
                curves.append([run.history.results.get((genome.id, s.name)) for s in _scored(run)])
                full.append(_figure(result, quality))
    values = np.array(full)
    if not np.isfinite(values).any():
        asked = f"no genome of {_named(runs)} that began anew has {quality.name!r} at its end"
        known = ", ".join(sorted(_metrics(runs)))
        raise UsageError(asked, f"Its finished genomes have: {known}." if known else HOW_TO_GET)
    values[np.isnan(values)] = np.nanmin(values)
    ends = _ends(runs[0])
    own = _signal(runs, curves, quality)
    loss = own if quality.name in LOSSES else _signal(runs, curves, EVAL_LOSS)
    training = Signal(_signal(runs, curves, TRAIN_LOSS).values)
    return CurveTable(
        name=f"{_named(runs)}: {quality.name}",
        metric=quality.name,
        configurations=tuple(names),
        checkpoints=(ends,) * len(names),
        signals={METRIC: own, LOSS: loss, TRAINING: training},
        full=values,
        tolerance=tolerance,
        training_rows=_training_rows(runs[0]),
        remarks=tuple(_remarks(len(names), cut, inherited)),
    )


HOW_TO_GET = (
    "Curves of all genomes come from a run that inherits nothing (evolution.inherit: off) and "
    "whose stages let everyone pass (survival_rate: 1.0, stop_when: []); some also from the "
    "control group of `hyperband_config.rungs: adaptive`. `--mode full` looks at nothing before "
    "the end."
)


def _remarks(known: int, cut: int, inherited: int) -> list[str]:
    remarks = []
    if cut:
        remarks.append(
            f"{cut} of {cut + known} genomes were cut or stopped, and how they would have ended is "
            f"not known: the regret is understated. {HOW_TO_GET}"
        )
    if inherited:
        remarks.append(
            f"{counted(inherited, 'genome')} began with another's weights and "
            f"{'is' if inherited == 1 else 'are'} left out"
        )
    return remarks


def _named(runs: Sequence[EarlierRun]) -> str:
    return ", ".join(run.layout.name for run in runs)


def _begun(run: EarlierRun) -> list[Genome]:
    """Whom the run has trained through a stage, or tried to."""
    trained = {genome for genome, _ in run.history.results}
    known = run.history.genomes.values()
    return [g for g in known if g.id in trained and g.derived is None]


def _has_diverged(run: EarlierRun, genome: Genome) -> bool:
    results = (r for (name, _), r in run.history.results.items() if name == genome.id)
    return any(r.divergence is not None and r.divergence.ruins_weights for r in results)


def _figure(result: StageResult | None, quality: Quality) -> float:
    figure = result.metrics.get(quality.name) if result is not None else None
    return math.nan if figure is None else quality.turned(figure)


def _metrics(runs: Sequence[EarlierRun]) -> set[str]:
    last = [(run, _stages(run)[-1].name) for run in runs]
    return {
        metric
        for run, stage in last
        for (_, name), result in run.history.results.items()
        if name == stage
        for metric, value in result.metrics.items()
        if value is not None and "_standard_error" not in metric
    }


def _signal(
    runs: Sequence[EarlierRun], curves: Sequence[Sequence[StageResult | None]], quality: Quality
) -> Signal:
    values = np.array([[_figure(result, quality) for result in curve] for curve in curves])
    per_stage = [float(_rows(runs[0], stage)) for stage in _scored(runs[0])]
    rows = np.tile(per_stage, (len(curves), 1))
    name = standard_error_name(quality.name)
    errors = np.array([[_error(result, name) for result in curve] for curve in curves])
    if quality.is_perplexity:  # of the logarithm, by the delta method
        errors = errors * np.exp(values)
    if not rows.all():  # a simulation has no rows
        return Signal(values)
    if np.isnan(errors).all():  # earlier versions did not record them
        return Signal(values, rows, quality.deviation(values))
    return Signal(values, rows, errors * np.sqrt(rows))


def _error(result: StageResult | None, name: str) -> float:
    error = result.metrics.get(name) if result is not None else None
    return math.nan if error is None else error


def _rows(run: EarlierRun, stage: Stage) -> int:
    """Validation rows that a stage of the run scores."""
    whole = run.facts.rows["validation"]
    return whole if stage.eval_limit is None else min(stage.eval_limit, whole)


def _training_rows(run: EarlierRun) -> float:
    """What a genome reads from its birth to its end."""
    return float(_stages(run)[-1].planned_steps(1) * run.facts.rows["train"])


def measured_prices(runs: Sequence[EarlierRun]) -> MeasuredPrices | None:
    """What runs that trained for real took. None where there is none."""
    real = [run for run in runs if run.facts.device != "none"]
    sums: Mapping[str, float] = _sums(real)
    if not (sums["rows"] and sums["scored"] and sums["training"]):
        return None
    pace = sums["training"] / sums["rows"]
    return MeasuredPrices(
        evaluation=sums["scoring"] / sums["scored"] / pace,
        overhead=sums["overhead"] / sums["stages"] / pace,
        runs=len(real),
    )


def _sums(runs: Sequence[EarlierRun]) -> dict[str, float]:
    """Seconds, and what they were spent on, over all stages of all genomes."""
    keys = ("training", "scoring", "overhead", "rows", "scored", "stages")
    sums = dict.fromkeys(keys, 0.0)
    for run in runs:
        stages = {stage.name: stage for stage in _stages(run)}
        for (name, stage), result in run.history.results.items():
            genome = run.history.genomes[name]
            if genome.derived is not None or result.divergence is not None:
                continue
            sums["training"] += result.train_seconds
            sums["scoring"] += result.eval_seconds
            sums["overhead"] += result.overhead_seconds
            sums["rows"] += result.steps * genome.genes.batch_size
            sums["scored"] += _rows(run, stages[stage]) if stages[stage].is_scored else 0
            sums["stages"] += 1
    return sums
