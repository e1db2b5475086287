"""The result of a stage, for the driver, and the figures that its losses and gradients give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student_t

from coralx.records.jobs import Job
from coralx.records.results import Metrics, StageResult, Trend
from coralx.schedule.early_stopping import curve_of
from coralx.training.initial_weights import StageStart
from coralx.training.loop import Trace

RECENT_STEPS = 50
"""`train_loss` is the mean over so many steps, the last ones."""

CONFIDENCE = 0.999
"""Of the interval of the loss's slope that stop rules judge by.

All genomes of a run see the same batches in the same order, so what these do to the loss they do to
all that have not learnt yet: at 95 %, in one run of forty (one of twenty where neighbouring losses
correlate by 0.2) the whole first stage would be stopped at once; at 99.9 %, in one of 2,000 (of
500). A loss that has gone wrong rises far beyond either."""


def result_of(
    job: Job,
    start: StageStart,
    trace: Trace,
    metrics: Metrics,
    notes: Sequence[str],
    eval_seconds: float,
    overhead_seconds: float,
    checkpoint_seconds: float = 0.0,
) -> StageResult:
    """The result of a job that is done; without figures and checkpoint where it diverged."""
    judged_from = max(job.first_step, job.horizon.warmup_steps)
    not_taken = sum(step >= judged_from for step in trace.skipped)
    judged_steps = max(0, job.last_step - judged_from - not_taken)
    return StageResult(
        genome=job.genome.id,
        stage=job.stage,
        first_step=job.first_step,
        last_step=job.first_step + len(trace.losses),
        metrics=metrics,
        judged_steps=judged_steps,
        loss_trend=None if trace.divergence else _trend(job, trace),
        train_seconds=trace.seconds,
        eval_seconds=eval_seconds,
        # The parts are timed one by one, and may add up to more than the total by a rounding.
        overhead_seconds=max(0.0, overhead_seconds),
        inherited_steps=start.inherited_steps,
        checkpoint=None if trace.divergence else job.checkpoint,
        divergence=trace.divergence,
        trained_tokens=trace.tokens,
        notes=tuple(notes),
        inheritance=start.inheritance,
        rank=job.trained_shape.rank,
        curve=curve_of(trace.losses, job.last_step - job.first_step),
        micro_batch=trace.micro_batch,
        skipped_steps=len(trace.skipped),
        peak_bytes=trace.peak_bytes,
        checkpoint_seconds=checkpoint_seconds,
    )


def signals_of(job: Job, trace: Trace) -> dict[str, float | None]:
    """Figures of the training steps; a stage of few steps has no slope."""
    trend = _trend(job, trace)
    return {
        "train_loss": float(np.mean(trace.losses[-RECENT_STEPS:])) if trace.losses else None,
        "gradient_norm": typical_gradient_norm(trace.norms),
        "loss_slope": trend.slope if trend else None,
    }


def _trend(job: Job, trace: Trace) -> Trend | None:
    """The trend of the losses that the job is judged by; in runs of earlier versions those after
    warm-up, by 95 %."""
    if job.judged_from is None:
        return loss_trend(trace.losses[max(0, job.horizon.warmup_steps - job.first_step) :])
    return loss_trend(trace.losses[job.judged_from - job.first_step :], CONFIDENCE)


def loss_trend(losses: Sequence[float], confidence: float = 0.95) -> Trend | None:
    """Least-squares slope of the loss per step with its interval (Student's t).

    None with fewer than three steps.
    """
    if len(losses) < 3:
        return None
    fit = linregress(np.arange(len(losses)), losses)
    half = float(student_t.ppf((1 + confidence) / 2, len(losses) - 2) * fit.stderr)
    return Trend(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


def typical_gradient_norm(norms: Sequence[float]) -> float | None:
    """90th percentile of the norms before clipping; None without a step."""
    return float(np.percentile(norms, 90)) if norms else None
