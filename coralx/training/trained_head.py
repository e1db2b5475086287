"""A classifier's head trained on the frozen base: what that is worth with nothing adapted in it.

The base reads each text once, as it does for scoring; kept is the one vector that the head reads.
On these vectors the head that CoralX trains beside LoRA weights, whatever its layers, is fitted to
cross-entropy with an L2 penalty on its weights by L-BFGS (Liu and Nocedal, 1989), as logistic
regression is. Which penalty, and after how many passes it ends, the validation loss decides.
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
from numpy.typing import NDArray
from peft.utils import ModulesToSaveWrapper

from coralx.backends.protocol import Beat, Report
from coralx.records.jobs import Job
from coralx.records.results import Progress
from coralx.tasks.protocol import Encoded
from coralx.tasks.sequence_classification import SequenceClassification
from coralx.training.inference import each_row
from coralx.training.task_data import Part

Batch = dict[str, torch.Tensor]
Given = dict[torch.nn.Module, Any]
"""What modules gave, by module."""

PENALTIES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
"""Half of it times the squared weights is added to the mean loss over the rows."""

ROUND = 10
"""Iterations between two looks at validation; two rounds without a gain end a penalty's turn."""

MOST_BYTES = 1 << 30
"""What the vectors of the training rows may take together; beyond it the first rows that fit are
taken, in whose stratified order every prefix has the classes' shares."""

CHUNK = 1 << 12
"""Vectors that go through the head at once."""

TOLERANCE = 0.05
"""By how much of the largest logit the head may say something else apart from its base, which may
compute in bf16."""


@dataclass(frozen=True)
class Fitted:
    """The losses of each pass over the training rows; `is_finite`: whether a head came of them."""

    losses: tuple[float, ...]
    is_finite: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vectors:
    """What a task's head reads of each row, shape (rows, width) in float32, and the classes."""

    task: SequenceClassification
    values: torch.Tensor
    labels: torch.Tensor

    @property
    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for first in range(0, len(self.labels), CHUNK):
            yield self.values[first : first + CHUNK], self.labels[first : first + CHUNK]


def train_head(
    model: Any,
    adapter: str,
    parts: Sequence[Part],
    scoring: Callable[[], AbstractContextManager[Any]],
    job: Job,
    report: Report,
    beat: Beat,
) -> Fitted:
    """Fit the head of the adapter of that name, which is active and adapts nothing else, in at most
    `job.last_step` passes over the training rows. Nothing is drawn at random.

    Raises ValueError where the base has no head of its own to train, or where what that head says
    cannot be told from one vector a text.
    """
    model.eval()
    with _in_float32(_heads(model, adapter)) as heads:
        head = _Head(model, heads, scoring)
        train = parts[0].train
        width = head.settle(_task(parts[0]), train.first(8))
        most = max(1, MOST_BYTES // (4 * width * len(parts)))
        known = [head.vectors(_task(part), part.train.first(most), beat) for part in parts]
        judged = [
            head.vectors(_task(part), part.splits["validation"].rows.first(most), beat)
            for part in parts
        ]
        rows, used = (
            sum(map(len, tables))
            for tables in ([p.train.ids for p in parts], [v.labels for v in known])
        )
        notes = () if used == rows else (f"trained on the first {used} of {rows} rows",)
        losses, is_finite = _fit(head, known, judged, job, report, beat)
    return Fitted(tuple(losses), is_finite, notes)


def _task(part: Part) -> SequenceClassification:
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
    """The heads' active weights held in float32, and put back as they were held."""
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


class _Head:
    """The head apart from its base: from the vector that its first module reads to the logits.

    The model's own forward pass computes it, on texts of a single token, in which all that comes
    before the head gives again what it gave once, and the head's first module reads vectors. So
    whatever the model does between the modules of its head is done.
    """

    def __init__(
        self,
        model: Any,
        heads: Sequence[ModulesToSaveWrapper],
        scoring: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._heads = heads
        self._scoring = scoring
        self._first = heads[0]
        self._is_flat = True
        self._token = 0
        self._texts: dict[int, tuple[Batch, Given]] = {}
        self.parameters = [p for head in heads for p in head.parameters() if p.requires_grad]

    def settle(self, task: SequenceClassification, data: Encoded) -> int:
        """Find out what the head reads, by a few rows; how wide the vector is. Raises ValueError
        where the head says something else apart from its base."""
        rows = list(range(len(data.ids)))
        self._token = data.ids[0][-1]
        with torch.no_grad():
            vectors, logits = self._read(task, data, rows)
            apart = self.logits(task, vectors).float()
        if (apart - logits).abs().max() > TOLERANCE * logits.abs().max():
            raise ValueError("the head's logits depend on more than the vector that it reads")
        return int(vectors.shape[-1])

    def vectors(self, task: SequenceClassification, data: Encoded, beat: Beat) -> Vectors:
        """What the head reads of every row."""

        def read(rows: list[int]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = self._read(task, data, rows)[0].cpu().numpy()
            return found

        values = torch.from_numpy(each_row(read, task, data, beat))
        device = self.parameters[0].device
        return Vectors(task, values.to(device), torch.as_tensor(data.labels).to(device))

    def _read(
        self, task: SequenceClassification, data: Encoded, rows: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors that the head reads of the rows, and the logits that the model then has.

        Where the head is given every token's vector, it reads the one that the logits change with.
        """
        seen: list[torch.Tensor] = []

        def watch(head: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if seen:
                return None
            torch.set_grad_enabled(True)  # from here on, until the context below ends
            self._first = head
            seen.append(args[0].detach().float().requires_grad_())
            return seen[0], *args[1:]

        handles = [head.register_forward_pre_hook(watch) for head in self._heads]
        try:
            with torch.no_grad(), self._scoring():
                logits = task.logits(self._model, data, rows).float()
                total = logits.sum()
        finally:
            for handle in handles:
                handle.remove()
        (given,) = seen
        self._is_flat = given.ndim == 2
        if self._is_flat:
            return given.detach(), logits.detach()
        (slope,) = torch.autograd.grad(total, given)
        is_read = slope.abs().sum(dim=-1) > 0
        if (is_read.sum(dim=1) != 1).any():
            raise ValueError("the head reads more than one vector of a text")
        return given.detach()[is_read], logits.detach()

    def logits(self, task: SequenceClassification, vectors: torch.Tensor) -> torch.Tensor:
        """The logits of vectors, shape (rows, classes)."""
        count = len(vectors)
        if count not in self._texts:
            texts = Encoded(((self._token,),) * count, np.zeros(count, dtype=np.int64))
            batch = task.batch(self._model, texts, range(count))
            with torch.no_grad(), self._scoring():
                self._texts[count] = batch, self._before_head(batch)
        batch, given = self._texts[count]
        read = vectors if self._is_flat else vectors[:, None]
        with _giving(given):
            handle = self._first.register_forward_pre_hook(lambda _, args: (read, *args[1:]))
            try:
                return task.logits_of(self._model, batch)
            finally:
                handle.remove()

    def _before_head(self, batch: Batch) -> Given:
        """What the outermost modules that hold no part of the head give before it is asked."""
        given: Given = {}
        is_asked: list[bool] = []

        def note(module: torch.nn.Module, _: Any, output: Any) -> None:
            if not is_asked:
                given[module] = output

        handles = [module.register_forward_hook(note) for module in self._outermost(self._model)]
        handles.append(self._first.register_forward_pre_hook(lambda *_: is_asked.append(True)))
        try:
            self._model(**batch)
        finally:
            for handle in handles:
                handle.remove()
        return given

    def _outermost(self, module: torch.nn.Module) -> Iterator[torch.nn.Module]:
        for child in module.children():
            if child in self._heads:
                continue
            if any(part in self._heads for part in child.modules()):
                yield from self._outermost(child)
            elif any(True for _ in child.parameters()):
                yield child


@contextmanager
def _giving(outputs: Given) -> Iterator[None]:
    """Have modules give these outputs, whatever they are asked."""
    before = {module: module.__dict__.get("forward") for module in outputs}
    for module, output in outputs.items():
        module.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for module, own in before.items():
            del module.forward
            if own is not None:
                module.forward = own


def _fit(
    head: _Head,
    train: Sequence[Vectors],
    validation: Sequence[Vectors],
    job: Job,
    report: Report,
    beat: Beat,
) -> tuple[list[float], bool]:
    """Fit with every penalty from the same start, and leave the head as it was where the validation
    loss was least; the loss of each pass, and whether that was a finite one."""
    began = time.monotonic()
    start = _copied(head)
    best, kept = math.inf, start
    losses: list[float] = []

    for place, penalty in enumerate(PENALTIES, start=1):
        _put(head, start)
        optimizer = torch.optim.LBFGS(
            head.parameters,
            max_iter=ROUND,
            history_size=ROUND,
            line_search_fn="strong_wolfe",
        )

        def closure(penalty: float = penalty) -> torch.Tensor:
            beat()
            loss = _slope(head, train, penalty)
            losses.append(float(loss))
            return loss

        lowest, idle = math.inf, 0
        while idle < 2 and len(losses) < job.last_step * place // len(PENALTIES):
            optimizer.step(closure)  # type: ignore[no-untyped-call]
            found = _mean_loss(head, validation)
            idle = 0 if found < lowest else idle + 1
            lowest = min(lowest, found)
            if found < best:
                best, kept = found, _copied(head)
            pace = (time.monotonic() - began) / len(losses)
            done = min(len(losses), job.last_step - 1)
            report(Progress(job.genome.id, job.stage, done, job.last_step, losses[-1], pace))
    _put(head, kept)
    return losses, math.isfinite(best)


def _slope(head: _Head, sets: Sequence[Vectors], penalty: float) -> torch.Tensor:
    """The penalised mean loss over all rows, every parameter's gradient set."""
    rows = sum(len(found.labels) for found in sets)
    weights = [p for p in head.parameters if p.ndim > 1]
    for parameter in head.parameters:
        parameter.grad = None
    with torch.enable_grad():
        total = torch.stack([weight.square().sum() for weight in weights]).sum() * penalty / 2
        total.backward()  # type: ignore[no-untyped-call]
        for loss in _losses(head, sets):
            (loss / rows).backward()  # type: ignore[no-untyped-call]
            total = total.detach() + loss.detach() / rows
    return total


def _mean_loss(head: _Head, sets: Sequence[Vectors]) -> float:
    with torch.no_grad():
        total = sum(float(loss) for loss in _losses(head, sets))
    return total / sum(len(found.labels) for found in sets)


def _losses(head: _Head, sets: Sequence[Vectors]) -> Iterator[torch.Tensor]:
    """The summed cross-entropy of each chunk; every row of every task counts alike."""
    for found in sets:
        for values, labels in found.chunks:
            logits = head.logits(found.task, values).float()
            yield torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def _copied(head: _Head) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in head.parameters]


def _put(head: _Head, weights: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, weight in zip(head.parameters, weights, strict=True):
            parameter.copy_(weight)
