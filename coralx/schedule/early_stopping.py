"""When training is stopped inside a stage: on an explosion of the loss, and when the learning curve
cannot reach the survivors' any more.

Pure arithmetic on losses that training computes anyway. Every loss is a cross-entropy in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from coralx.records.jobs import Job
from coralx.records.results import Divergence

RECENT_STEPS = 8
"""Losses whose median shows an explosion, at least: a few wild ones are only a spike."""
RECENT_ROWS = 64
"""Rows behind those losses, at least: the loss of few rows says more of them than of the model."""

WINDOWS = 8
"""The number of equal parts of a stage; its curve has a point for each."""
FEWEST_WINDOWS = 4
"""A trend is fitted to no fewer windows: three points on a line are no evidence."""
MARGIN = 0.05
"""A loss is worse than another if it is higher by more than this share. Without a margin, noise
alone would stop genomes (seen with MiniLM on LIAR)."""
STUDENT = {2: 2.9200, 3: 2.3534, 4: 2.1318, 5: 2.0150}
"""95th percentiles of Student's t by degrees of freedom: those of 4 to 7 windows and two
parameters. A table, since the driver reads this module and scipy takes a second to load."""


def explosion_limit(untuned: float) -> float:
    """The training loss beyond which a genome has blown up: three times the untuned base's, but
    at least 1 and at most 3 nats above it.

    A genome that learnt nothing has the base's own loss: no learning rate that helps comes near the
    limit. On MiniLM and tweets (untuned 0.70) no genome that learnt passed 1.0, and none that
    passed 2.1 learnt anything. The least distance is for a base that knows the task already, and so
    has next to no loss; the greatest for one whose loss is that of guessing: 3 nats are 20 times
    the perplexity. Norms of gradients are no sign: clipping makes large ones harmless as long as
    the loss does not follow.
    """
    return untuned + min(max(2.0 * untuned, 1.0), 3.0)


def recent_loss(losses: Sequence[float], batch_size: int) -> float | None:
    """The median of the last losses; None where there are too few."""
    steps = max(RECENT_STEPS, math.ceil(RECENT_ROWS / batch_size))
    return median(losses[-steps:]) if len(losses) >= steps else None


def window_ends(steps: int) -> list[int]:
    """The steps after which each window of a stage of `steps` is complete."""
    return [steps * (place + 1) // WINDOWS for place in range(WINDOWS)]


def curve_of(losses: Sequence[float], steps: int) -> tuple[float, ...]:
    """The mean loss in each window, of those that are complete, of a stage of `steps`; empty where
    the stage has fewer steps than windows.

    A window is a share of the stage, and batches take the rows in one order, so that genomes of
    any batch size have read about the same rows in it.
    """
    if steps < WINDOWS:
        return ()
    ends = [end for end in window_ends(steps) if end <= len(losses)]
    return tuple(
        math.fsum(losses[start:end]) / (end - start)
        for start, end in zip([0, *ends], ends, strict=False)
    )


def highest_losses(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The highest loss that any of the survivors had in each window."""
    return tuple(max(losses) for losses in zip(*curves, strict=True))


def loss_within_reach(
    curve: Sequence[float], survivors: Sequence[float], skipped: int = 0
) -> float | None:
    """The loss at the end of a stage that is under way, predicted optimistically: the lower 95 %
    bound of a prediction from the windows of `curve` without the first `skipped`; None with too
    few of them.

    What is extrapolated, by a straight line, is the gap to the survivors. Rows that are hard raise
    both losses alike, and the gap between two curves that level off bends less than either.
    Domhan, Springenberg and Hutter (2015) likewise end a training where a model of its curve
    reaches the best with a probability under 5 %.
    """
    gaps = [own - other for own, other in zip(curve, survivors, strict=False)][skipped:]
    count = len(gaps)
    if count < FEWEST_WINDOWS:
        return None
    centre, mean = (count - 1) / 2, math.fsum(gaps) / count
    spread = math.fsum((place - centre) ** 2 for place in range(count))
    slope = math.fsum((place - centre) * gap for place, gap in enumerate(gaps)) / spread
    rest = math.fsum((gap - mean - slope * (p - centre)) ** 2 for p, gap in enumerate(gaps))
    ahead = WINDOWS - 1 - skipped - centre
    error = math.sqrt(rest / (count - 2) * (1 + 1 / count + ahead**2 / spread))
    return survivors[-1] + mean + slope * ahead - STUDENT[count - 2] * error


def unreachable(
    curve: Sequence[float], survivors: Sequence[float], skipped: int = 0
) -> float | None:
    """The loss that is still within reach, where that is worse than every survivor's; else None.

    Both the optimistic loss at the stage's end and the last window's must be worse than the highest
    of any survivor at that time.
    """
    reach = loss_within_reach(curve, survivors, skipped)
    if reach is None or reach <= survivors[-1] * (1 + MARGIN):
        return None
    return reach if curve[-1] > survivors[len(curve) - 1] * (1 + MARGIN) else None


def reason_to_stop(job: Job, losses: Sequence[float], untuned: float | None) -> Divergence | None:
    """Why a job is to end after these steps, by its `watch`; None: it goes on. Called after each
    step.

    `untuned` is the base's own training loss; without it no explosion is recognised.
    """
    step = job.first_step + len(losses)
    if job.watch.explosion and untuned is not None:
        recent = recent_loss(losses, job.genome.genes.batch_size)
        if recent is not None and recent > explosion_limit(untuned):
            return Divergence(step, "loss", "exploded", recent, untuned)
    ends = window_ends(job.last_step - job.first_step)
    if job.watch.survivors and len(losses) in ends[:-1]:
        curve = curve_of(losses, ends[-1])
        reach = unreachable(curve, job.watch.survivors, windows_in_warmup(job))
        if reach is not None:
            return Divergence(step, "loss", "unreachable", reach, job.watch.survivors[-1])
    return None


def windows_in_warmup(job: Job) -> int:
    """Windows that begin before warm-up is over: they do not show how fast the genome learns."""
    starts = [0, *window_ends(job.last_step - job.first_step)[:-1]]
    return sum(job.first_step + start < job.horizon.warmup_steps for start in starts)
