"""What the user's own metric, `metric: module:function`, is given.

The function takes one `Predictions` and returns a number, or None where it is undefined; the same
predictions must give the same number. `judge: module:function` takes a prompt and the model's
answer to it, both text, and returns whether the attack failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coralx.metrics.row_scores import Labels, LanguageScores, Probabilities


@dataclass(frozen=True)
class Predictions:
    """The model's predictions for one task's rows of a split."""

    task: str
    """Its name among `data.tasks`; "" in a run without named tasks."""

    split: Literal["validation", "test"]

    texts: tuple[str, ...]
    """The rows' texts as they were read."""

    groups: tuple[str, ...]
    """The rows' groups; "" without `data.group`."""

    classes: tuple[str, ...]
    """The names of the classes, the negative one first; empty for sft."""

    probabilities: Probabilities
    """Shape (rows, classes); empty for sft."""

    labels: Labels
    """The true class of each row by its number, shape (rows,); empty for sft."""

    losses: LanguageScores
    """For sft, of each row's completion the negative log-likelihood in nats and the number of
    tokens, shape (rows, 2); else empty."""

    withstood: NDArray[np.float64]
    """1 for each attack that failed, as `safety` counts them, shape (attacks,). Empty without
    attacks; NaN where no positive validation row gives a threshold."""
