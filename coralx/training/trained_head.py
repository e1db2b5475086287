"""A classifier's head trained on the frozen base: what that is worth with nothing adapted in it.

On the vectors that the head reads, the head that CoralX trains beside LoRA weights, whatever its
layers, is fitted to cross-entropy with an L2 penalty on its weights by L-BFGS (Liu and Nocedal,
1989), as logistic regression on standardised vectors is. The penalty becomes weaker and weaker,
each fit starting from the last one's, and the validation loss decides where that ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft.utils import ModulesToSaveWrapper

from coralx.backends.protocol import Beat, Report
from coralx.data.order import subset_size
from coralx.records.jobs import Job
from coralx.records.results import Progress
from coralx.tasks.protocol import Encoded
from coralx.tasks.sequence_classification import SequenceClassification
from coralx.training.detached_head import DetachedHead, Vectors
from coralx.training.standardised_vectors import Standardisation
from coralx.training.task_data import Material
from coralx.training.task_parts import TaskPart

STRONGEST, WEAKEST = 1e3, 1e-10
"""Half of the penalty times the squared weights is added to the loss summed over the rows, so that
it is to a vector's standardised components what 1/C is in logistic regression, however many rows
there are."""

WEAKER = 10**-0.5
"""The ratio of a penalty to the one before it."""

VAIN = 4
"""So many penalties in a row without a lower validation loss end the fit."""

ROUND = 10
"""Iterations between two looks at validation; two rounds without a gain end a penalty's turn."""

MOST_BYTES = 1 << 30
"""What the vectors of the training rows may take together; beyond it the first rows that fit are
taken, in whose stratified order every prefix has the classes' shares."""


@dataclass(frozen=True)
class FittedHead:
    """What came of fitting a head."""

    losses: tuple[float, ...]
    """Of each pass over the training rows."""
    is_finite: bool
    """Whether the best validation loss is a finite number, so that there is a head."""
    notes: tuple[str, ...] = ()


def train_head(
    model: Any,
    adapter: str,
    material: Material,
    scoring: Callable[[], AbstractContextManager[Any]],
    job: Job,
    report: Report,
    beat: Beat,
) -> FittedHead:
    """Fit the head of the adapter of that name, which is active and adapts nothing else, in at most
    `job.last_step` passes over the job's share of the training rows, which is that of the genomes
    that train on as much. Nothing is drawn at random.

    Raises ValueError where the base has no head of its own to train, or where that head's logits
    do not follow from one vector a text.
    """
    parts = material.parts
    own_rows = _shares(material, job.data_fraction)
    model.eval()
    with _in_float32(_heads(model, adapter)) as heads:
        head = DetachedHead(model, heads, scoring)
        width = head.calibrate(_task(parts[0]), parts[0].train.first(8))
        most = max(1, MOST_BYTES // (4 * width * len(parts)))
        train, validation = [], []
        for part, rows in zip(parts, own_rows, strict=True):
            if len(rows.ids):
                train.append(head.vectors(_task(part), rows.first(most), beat))
        for part in parts:
            rows = part.splits["validation"].rows.first(most)
            validation.append(head.vectors(_task(part), rows, beat))
        scale = Standardisation(head.first_layer(train[0]), train)
        train = [scale.of(vectors) for vectors in train]
        losses, is_finite = _fit(head, scale, train, validation, job, report, beat)
    return FittedHead(tuple(losses), is_finite, _notes(own_rows, train))


def _shares(material: Material, fraction: float) -> list[Encoded]:
    """Each task's rows among the first `fraction` of the training rows."""
    train = material.train
    used = subset_size(len(train.ids), fraction)
    numbers = np.asarray(train.tasks or np.zeros(len(train.ids)))[:used]
    return [train.first(used).where(numbers == number) for number in range(len(material.parts))]


def _notes(own_rows: Sequence[Encoded], train: Sequence[Vectors]) -> tuple[str, ...]:
    """A remark where not all rows of the share were used."""
    rows = sum(len(part.ids) for part in own_rows)
    used = sum(len(vectors.labels) for vectors in train)
    return () if used == rows else (f"trained on the first {used} of {rows} rows",)


def _task(part: TaskPart) -> SequenceClassification:
    if not isinstance(part.task, SequenceClassification):
        raise TypeError("only a sequence classifier has a head")
    return part.task


def _heads(model: Any, adapter: str) -> list[ModulesToSaveWrapper]:
    heads = [
        module
        for module in model.modules()
        if isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save
    ]
    if not heads:
        raise ValueError("the base has no head that is trained beside an adapter")
    return heads


@contextmanager
def _in_float32(heads: Sequence[ModulesToSaveWrapper]) -> Iterator[Sequence[ModulesToSaveWrapper]]:
    """In the block the heads' active weights are float32; behind it they are as they were held."""
    trained = [p for head in heads for p in head.parameters() if p.requires_grad]
    kinds = [parameter.dtype for parameter in trained]
    for parameter in trained:
        parameter.data = parameter.data.float()
    try:
        yield heads
    finally:
        for parameter, kind in zip(trained, kinds, strict=True):
            parameter.grad = None
            parameter.data = parameter.data.to(kind)


def _fit(
    head: DetachedHead,
    scale: Standardisation,
    train: Sequence[Vectors],
    validation: Sequence[Vectors],
    job: Job,
    report: Report,
    beat: Beat,
) -> tuple[list[float], bool]:
    """Fit to `train`, which is standardised, with ever weaker penalties, and leave the head as it
    was where the loss on `validation`, which is not, was least; the loss of each pass, and whether
    that was a finite one."""
    began = time.monotonic()
    best, kept = math.inf, _copied(head)
    losses: list[float] = []
    scale.enter()

    penalty, vain = STRONGEST, 0
    while vain < VAIN and penalty >= WEAKEST and len(losses) < job.last_step:
        step = _stepper(head, train, penalty, losses, beat)
        lowest, idle, before = math.inf, 0, best
        while idle < 2 and len(losses) < job.last_step:
            step()
            fitted = _copied(head)
            scale.leave()  # what is judged is what will be saved, roundings of bf16 included
            loss = _mean_loss(head, validation)
            idle = 0 if loss < lowest else idle + 1
            lowest = min(lowest, loss)
            if loss < best:
                best, kept = loss, _copied(head)
            _put(head, fitted)
            pace = (time.monotonic() - began) / len(losses)
            done = min(len(losses), job.last_step - 1)
            report(Progress(job.genome.id, job.stage, done, job.last_step, losses[-1], pace))
        vain = 0 if best < before else vain + 1
        penalty *= WEAKER
    _put(head, kept)
    return losses, math.isfinite(best)


def _stepper(
    head: DetachedHead,
    train: Sequence[Vectors],
    penalty: float,
    losses: list[float],
    beat: Beat,
) -> Callable[[], object]:
    """What takes a round of iterations at a time; appends the loss of each pass to `losses`."""
    optimizer = torch.optim.LBFGS(
        head.parameters,
        max_iter=ROUND,
        history_size=ROUND,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        beat()
        loss = _loss_with_gradient(head, train, penalty)
        losses.append(float(loss))
        return loss

    def step() -> object:
        return optimizer.step(closure)  # type: ignore[no-untyped-call]

    return step


def _loss_with_gradient(
    head: DetachedHead, sets: Sequence[Vectors], penalty: float
) -> torch.Tensor:
    """The penalised mean loss over all rows, every parameter's gradient set."""
    rows = sum(len(vectors.labels) for vectors in sets)
    weights = [p for p in head.parameters if p.ndim > 1]  # biases are not penalised
    for parameter in head.parameters:
        parameter.grad = None
    with torch.enable_grad():
        squares = torch.stack([weight.square().sum() for weight in weights]).sum()
        total = squares * penalty / (2 * rows)
        total.backward()  # type: ignore[no-untyped-call]
        for loss in _losses(head, sets):
            (loss / rows).backward()  # type: ignore[no-untyped-call]
            total = total.detach() + loss.detach() / rows
    return total


def _mean_loss(head: DetachedHead, sets: Sequence[Vectors]) -> float:
    with torch.no_grad():
        total = sum(float(loss) for loss in _losses(head, sets))
    return total / sum(len(vectors.labels) for vectors in sets)


def _losses(head: DetachedHead, sets: Sequence[Vectors]) -> Iterator[torch.Tensor]:
    """The summed cross-entropy of each chunk; every row of every task counts alike."""
    for vectors in sets:
        for values, labels in vectors.chunks:
            logits = head.logits(vectors.task, values).float()
            yield torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def _copied(head: DetachedHead) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in head.parameters]


def _put(head: DetachedHead, weights: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, weight in zip(head.parameters, weights, strict=True):
            parameter.copy_(weight)
