"""What a metric of the user's own is given: `metric: module:function`.

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
    """What the model under judgement said about one task's rows of a split, one entry a row.

    `texts` are the rows as they were read, `groups` their group ("" without `data.group`). For
    classifiers `classes` are the names of the classes, the negative one first, `probabilities` has
    shape (rows, classes), and `labels` holds the true class's index. For sft those are empty, and
    `losses` has shape (rows, 2): the completion's negative log-likelihood in nats, and its tokens.
    `withstood` is 1 for every attack that failed, as `safety` counts them, shape (attacks,); empty
    without attacks, NaN where no positive validation row settles a threshold.
    """

    task: str
    split: Literal["validation", "test"]
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Probabilities
    labels: Labels
    losses: LanguageScores
    withstood: NDArray[np.float64]
