"""Whether a classifier is outside CoralX what it is here: a text alone, against one in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from coralx.tasks.sequence_classification import SequenceClassification
from coralx.training.task_data import Material

LARGEST = 0.1
"""How far a logit may move, in standard deviations of logits: 16 bits round them by less."""


def disagreements(
    model: Any, material: Material, autocast: Callable[[], AbstractContextManager[Any]]
) -> Iterator[str]:
    """Warnings about bases that read the padding beside a text, or more of what their tokenizer
    gives than the text: figures are then those of padded batches, and not what others get."""
    model.eval()
    for part in material.parts:
        if not isinstance(part.task, SequenceClassification):
            continue
        judged = part.splits["validation"]
        by_length = np.argsort(judged.rows.lengths, kind="stable").tolist()
        rows = [row for row in by_length if judged.rows.ids[row]]
        if not rows:
            continue
        with torch.no_grad(), autocast():
            batch = part.task.logits(model, judged.rows, [rows[0], rows[-1]]).float()
            alone = part.task.logits_alone(model, judged.examples[rows[0]].text).float()
        if (batch[0] - alone).abs().max() > LARGEST * batch.std():
            yield (
                "the base gives a text other logits beside a longer one than alone: figures are "
                "those of padded batches, and whoever scores single texts gets others"
            )
            return
