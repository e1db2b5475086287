"""Scores, answers and losses of a model that is not being trained.

Rows go through the model sorted by length, so that batches hold little padding; results come back
in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.backends.protocol import Beat, no_beat
from coralx.tasks.generation import Answers
from coralx.tasks.protocol import Encoded, Scores, Task, Trainable
from coralx.training.out_of_memory import in_parts

Number = TypeVar("Number", np.float32, np.float64)

EVAL_ROWS = 64
"""Rows scored together at most; the figures do not depend on it."""

ANSWER_TOKENS = 1 << 12
"""Tokens of prompts and answers that are read and written together."""


def predict(
    model: Any,
    task: Task,
    data: Encoded,
    autocast: Callable[[], AbstractContextManager[Any]],
    beat: Beat = no_beat,
) -> Scores:
    """The task's scores of every row of `data`, shape (rows, columns). Raises OutOfMemory where a
    single row does not fit."""
    model.eval()
    with torch.no_grad(), autocast():
        return each_row(lambda rows: task.scores(model, data, rows), task, data, beat)


def each_row(
    work: Callable[[list[int]], NDArray[Number]], task: Trainable, data: Encoded, beat: Beat
) -> NDArray[Number]:
    """What `work` makes of every row of `data`, in their order, done on batches of rows of like
    length. Raises OutOfMemory where a single row does not fit."""
    by_length = np.argsort(data.lengths, kind="stable")

    def on_batch(rows: list[int]) -> NDArray[Number]:
        beat()
        return work(rows)

    batches = _batches(by_length.tolist(), data.lengths, task.eval_tokens)
    values = np.concatenate([part for rows in batches for part in in_parts(on_batch, rows)])
    ordered = np.empty_like(values)
    ordered[by_length] = values
    return ordered


def generated_answers(
    model: Any,
    answers: Answers,
    data: Encoded,
    autocast: Callable[[], AbstractContextManager[Any]],
    beat: Beat = no_beat,
) -> list[str]:
    """The model's answers to every prompt in `data`, in order. Raises as `predict` does."""
    by_length = np.argsort(data.lengths, kind="stable").tolist()
    with_answer = [length + answers.max_new_tokens for length in data.lengths]

    def on_batch(rows: list[int]) -> list[str]:
        return answers.of(model, data, rows, beat)

    texts: list[str] = []
    model.eval()
    with torch.no_grad(), autocast():
        for rows in _batches(by_length, with_answer, ANSWER_TOKENS):
            for part in in_parts(on_batch, rows):
                texts += part
    by_row = dict(zip(by_length, texts, strict=True))
    return [by_row[row] for row in range(len(texts))]


def heaviest_batch(task: Task, data: Encoded) -> list[int]:
    """Of the batches in which `data` is scored, the one that holds the most tokens, padding
    included."""
    by_length = np.argsort(data.lengths, kind="stable").tolist()
    batches = _batches(by_length, data.lengths, task.eval_tokens)
    return max(batches, key=lambda rows: len(rows) * data.lengths[rows[-1]])


def mean_loss(
    model: Any,
    task: Trainable,
    data: Encoded,
    rows: Sequence[int],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> float:
    """The training loss of `rows`, the mean over them, of the model as it stands."""
    by_length = sorted(rows, key=lambda row: len(data.ids[row]))

    # Summed, as batches differ in size.
    def summed(rows: list[int]) -> float:
        return task.loss(model, data, rows).item() * len(rows)

    batches = _batches(by_length, data.lengths, task.eval_tokens)
    model.eval()
    with torch.no_grad(), autocast():
        losses = [loss for batch in batches for loss in in_parts(summed, batch)]
    return sum(losses) / len(rows)


def _batches(rows: list[int], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Rows, shortest first, in batches of at most so many tokens, padding included (a longer row is
    alone in its batch)."""
    batches: list[list[int]] = []
    for row in rows:
        last = batches[-1] if batches else []
        # Every row of a batch is padded to its longest, which is the one that comes last.
        is_full = len(last) >= EVAL_ROWS or (len(last) + 1) * lengths[row] > most_tokens
        if not last or is_full:
            batches.append([row])
        else:
            last.append(row)
    return batches
