"""Recorded learning curves, as the search for a schedule sees them.

Figures are turned so that higher is better. What a figure on fewer rows would have been is not
recorded: it is drawn, with the noise that its standard error leads to be expected.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from coralx.schedule.cohort_regret import Floats

SHARED = 0.5
"""The part of a figure's variance that is common to all genomes, as they are scored on the same
rows, and that moves no rank: about half (`benchmarks/fidelity/noise.py`)."""

LOSS_SPREAD = 0.4
"""The standard deviation of a row's loss over the mean loss, where no standard error is recorded:
from a few hundredths to 0.5 for most trainings measured (`benchmarks/fidelity/noise.py`)."""

NEAR = Fraction(1, 2)
"""A checkpoint stands for a stage's end that lies no further on than where this part of it is."""


@dataclass(frozen=True)
class Signal:
    """What a stage may rank by: a figure at every checkpoint, shape (configurations, checkpoints).

    NaN where the figure is undefined, as after a divergence; such a genome ranks last.
    """

    values: Floats
    rows: Floats | None = None
    """Validation rows behind each figure; None: not known, so nothing is said about fewer."""
    deviation: Floats | None = None
    """A figure's standard error times the root of its rows; None: not known."""

    @property
    def knows_its_noise(self) -> bool:
        """Whether it tells what fewer rows would have shown."""
        return self.rows is not None and self.deviation is not None

    def noise(self, rows: int) -> Floats:
        """The standard deviation, for each configuration and checkpoint, of what a figure on fewer
        rows adds to the differences between genomes; 0 on as many rows or more."""
        if self.rows is None or self.deviation is None or rows <= 0:
            return np.zeros_like(self.values)
        fewer = np.maximum(1.0 / rows - 1.0 / self.rows, 0.0)
        return np.asarray(np.nan_to_num(self.deviation) * np.sqrt((1.0 - SHARED) * fewer))


@dataclass(frozen=True)
class CurveTable:
    """The curves of one task: what each configuration showed, and where it ended."""

    name: str
    metric: str
    configurations: tuple[str, ...]
    """By name. The same name in another table is taken for the same configuration, on another
    task."""
    checkpoints: tuple[tuple[Fraction, ...], ...]
    """For each configuration: where its checkpoints lie, as shares of its training, ascending.
    Behind those of one that has fewer, its rows in `signals` are NaN."""
    signals: dict[str, Signal]
    """By kind: METRIC, and LOSS and TRAINING where these are recorded, too."""
    full: Floats
    """The full result of each configuration, higher is better; never NaN."""
    tolerance: float
    """The regret that is as good as none, in the metric's unit (of perplexity: its logarithm)."""
    training_rows: float | None = None
    """What one of them read from its birth to its end; None: not known."""
    remarks: tuple[str, ...] = ()
    """What to know of the curves, in words."""

    def __len__(self) -> int:
        return len(self.configurations)

    def place(self, configuration: int, share: Fraction) -> int | None:
        """The last checkpoint at or before a share of the training; None: there is none near."""
        known = self.checkpoints[configuration]
        place = bisect_right(known, share) - 1
        is_over = place == len(known) - 1  # it ended before: nothing comes after
        return place if place >= 0 and (is_over or known[place] >= NEAR * share) else None

    def reaches(self, share: Fraction) -> bool:
        """Whether every configuration has a checkpoint that stands for this share."""
        return all(self.place(number, share) is not None for number in range(len(self)))

    def at(self, share: Fraction, kind: str, rows: int) -> tuple[Floats, Floats]:
        """What each configuration shows at a share, and the noise of so many rows."""
        signal = self.signals[kind]
        places = [self.place(number, share) or 0 for number in range(len(self))]
        numbers = np.arange(len(self))
        return signal.values[numbers, places], signal.noise(rows)[numbers, places]


METRIC, LOSS, TRAINING = "metric", "loss", "training loss"
"""Kinds of signals: the metric whose best is to be kept, the loss on validation, and the mean
training loss, for which nothing need be scored."""


def common_shares(tables: Sequence[CurveTable], shares: Sequence[Fraction]) -> list[Fraction]:
    """Those of `shares` at which all tables tell something, ascending."""
    return [s for s in sorted(set(shares)) if all(table.reaches(s) for table in tables)]


def area_deviation(area: Floats, positive: float = 0.5) -> Floats:
    """The standard error of areas under ROC curves times the root of the rows, of which the share
    `positive` is positive, for many rows (Hanley and McNeil 1982, equation 1)."""
    area = np.clip(area, 0.5, 1.0)
    one, two = area / (2.0 - area), 2.0 * area**2 / (1.0 + area)
    # for many rows A (1 - A) / (n+ n-) is nothing beside the other two terms
    variance = (one - area**2) / positive + (two - area**2) / (1.0 - positive)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def share_deviation(value: Floats) -> Floats:
    """The same of a share of rows, such as accuracy (binomial)."""
    value = np.clip(value, 0.0, 1.0)
    return np.asarray(np.sqrt(value * (1.0 - value)))
