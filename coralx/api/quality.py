"""The figure whose best is to be kept: its direction, its unit, and what is as good as no loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coralx.config import Config
from coralx.config.metric_catalogue import (
    CATALOGUE,
    QUALITY,
    SHARE,
    Direction,
    metric_entry,
    split_metric_name,
)
from coralx.errors import UsageError
from coralx.schedule.cohort_regret import Floats
from coralx.schedule.tuning_curves import LOSS_SPREAD, area_deviation, share_deviation
from coralx.text import shown

LOSSES = ("eval_loss", "loss", "perplexity")
"""Columns that hold the loss on validation, or what ranks as it does."""

FURTHER: dict[str, Direction] = {"bleu": "maximize", "loss": "minimize"}
"""Metrics of other tools' tables that CoralX does not compute."""

TOLERANCE, LOSS_TOLERANCE, BLEU_TOLERANCE = 0.003, 0.01, 0.3
"""What is as good as no loss: of a figure from 0 to 1, of a loss in nats (which is 1 % of a
perplexity), and of BLEU from 0 to 100."""


@dataclass(frozen=True)
class Quality:
    """A metric, as a table of curves has it."""

    name: str
    direction: Direction

    @property
    def is_perplexity(self) -> bool:
        """Whether figures are compared by their logarithms, which are losses."""
        return split_metric_name(self.name)[0] == "perplexity"

    @property
    def tolerance(self) -> float | None:
        """The regret that is as good as none; None: nothing is known of the metric's scale."""
        metric, _ = split_metric_name(self.name)
        if metric in LOSSES:
            return LOSS_TOLERANCE
        if metric == "bleu":
            return BLEU_TOLERANCE
        is_share = metric in CATALOGUE and CATALOGUE[metric].extent == SHARE
        return TOLERANCE if is_share else None

    def turned(self, figure: float) -> float:
        """A figure turned so that higher is better; NaN for one that is no number."""
        if self.is_perplexity:
            return -math.log(figure) if 0 < figure < math.inf else math.nan
        return figure if self.direction == "maximize" else -figure

    def deviation(self, turned: Floats) -> Floats | None:
        """The standard error of figures times the root of their rows, where no table says; None
        where that depends on more than the figure."""
        metric, _ = split_metric_name(self.name)
        if metric in ("auroc", "task_skill"):
            return area_deviation(turned)
        if metric in LOSSES:  # the logarithm of a perplexity is a loss
            return LOSS_SPREAD * np.abs(turned)
        return share_deviation(turned) if metric in ("accuracy", "recall") else None


EVAL_LOSS, TRAIN_LOSS = Quality("eval_loss", "minimize"), Quality("train_loss", "minimize")


def quality_of(config: Config) -> Quality:
    """The first objective that training changes. Raises UsageError where there is none."""
    for objective in config.objectives:
        if metric_entry(objective.metric).source in QUALITY:
            return Quality(objective.metric, config.direction_of(objective.metric))
    raise UsageError(
        "no objective of this config is a figure of quality, whose best a schedule should keep",
        "Name one with --metric, such as --metric auroc.",
    )


def parse_quality(text: str) -> Quality:
    """`NAME`, or `NAME:minimize` and `NAME:maximize` for a metric that CoralX does not know.

    Raises UsageError.
    """
    name, separator, direction = text.rpartition(":")
    if separator and direction in ("minimize", "maximize") and name:
        return Quality(name, "minimize" if direction == "minimize" else "maximize")
    metric, _ = split_metric_name(text)
    known = CATALOGUE[metric].direction if metric in CATALOGUE else FURTHER.get(metric)
    if known is None:
        raise UsageError(
            f"--metric {shown(text)}: whether more of it is better is not known",
            f"Write --metric {text}:maximize or --metric {text}:minimize.",
        )
    return Quality(text, known)
