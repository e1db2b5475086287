"""Several tasks trained together: their rows in one order, each with its own task's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from coralx.data import order_revision1 as revision1
from coralx.data.order import stratified_order
from coralx.records.run_facts import REVISION
from coralx.rng import generator
from coralx.tasks.protocol import Encoded, Trainable


class MultiTask:
    """Several tasks in one: of each batch, every task's loss reads its own rows, and each row (or
    token, for sft) counts as much as any other."""

    def __init__(self, tasks: Sequence[Trainable]) -> None:
        self._tasks = tuple(tasks)
        self.eval_tokens = min(task.eval_tokens for task in tasks)

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> torch.Tensor:
        parts = self._by_task(data, rows)
        total = self.weight(data, rows)
        losses = []
        for task, own in parts:
            # A task's loss is a mean over its own rows; by its share, they sum to the mean of all.
            losses.append(task.loss(model, data, own) * (task.weight(data, own) / total))
        return torch.stack(losses).sum()

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        return sum(task.weight(data, own) for task, own in self._by_task(data, rows))

    def _by_task(self, data: Encoded, rows: Sequence[int]) -> list[tuple[Trainable, list[int]]]:
        """The tasks that have rows here, each with its own."""
        by_number: dict[int, list[int]] = {}
        for row in rows:
            by_number.setdefault(data.tasks[row], []).append(row)
        return [(self._tasks[number], own) for number, own in sorted(by_number.items())]


def mixed(parts: Sequence[Encoded], seed: int, revision: int = REVISION) -> Encoded:
    """All tasks' training rows in one order, of which every prefix holds the share of each class of
    each task to within one row, and nearly always that of each task as well: it did in each of
    14,670 random mixtures. Where both are impossible, the tasks' shares give way. `revision`: in
    which version's order (`run_facts.Settings`)."""
    strata = [(task, int(label)) for task, part in enumerate(parts) for label in part.labels]
    rng = generator(seed, "task-order")
    if revision < 2:
        order = revision1.stratified_order(strata, rng).tolist()
    else:
        order = stratified_order(strata, rng, groups=[task for task, _ in strata]).tolist()
    ids = [row for part in parts for row in part.ids]
    labels = np.concatenate([part.labels for part in parts])
    targets = [row for part in parts for row in part.targets]
    return Encoded(
        tuple(ids[row] for row in order),
        labels[order],
        tuple(targets[row] for row in order) if targets else (),
        cut=sum(part.cut for part in parts),
        left_out=sum(part.left_out for part in parts),
        empty=sum(part.empty for part in parts),
        tasks=tuple(strata[row][0] for row in order),
    )
