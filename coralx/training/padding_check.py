"""Whether a classifier gives a text the same logits alone, as others will ask it, as in a batch."""

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
    """Warnings about bases that read the padding behind a text, or more of what their tokenizer
    gives than the text: figures are then those of padded batches, and not what others get."""
    model.eval()
    for part in material.parts:
        if not isinstance(part.task, SequenceClassification):
            continue
        validation = part.splits["validation"]
        by_length = np.argsort(validation.rows.lengths, kind="stable").tolist()
        rows = [row for row in by_length if validation.rows.ids[row]]  # a text may have no token
        if not rows:
            continue
        with torch.no_grad(), autocast():
            batch = part.task.logits(model, validation.rows, [rows[0], rows[-1]]).float()
            alone = part.task.logits_alone(model, validation.examples[rows[0]].text).float()
        if (batch[0] - alone).abs().max() > LARGEST * batch.std():
            yield (
                "the base gives a text other logits in a batch with a longer one than alone: the "
                "figures are those of padded batches; scoring single texts will give others"
            )
            return
