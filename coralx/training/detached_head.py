"""A classifier's head apart from its base: vectors in, logits out.

The base reads each text once; kept is the one vector that the head reads of it. From then on the
head alone is computed, in a small part of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft.utils import ModulesToSaveWrapper

from coralx.backends.protocol import Beat
from coralx.tasks.protocol import Encoded
from coralx.tasks.sequence_classification import SequenceClassification
from coralx.training.inference import each_row

Batch = dict[str, torch.Tensor]
Outputs = dict[torch.nn.Module, Any]
"""What modules returned, by module."""

CHUNK = 1 << 12
"""Vectors that go through the head at once."""

TOLERANCE = 0.05
"""By how much of the largest logit the detached head may differ from the whole model, which may
compute in bf16."""


@dataclass(frozen=True)
class Vectors:
    """What a task's head reads of each row."""

    task: SequenceClassification
    values: torch.Tensor
    """Shape (rows, width), float32."""
    labels: torch.Tensor
    """Each row's class, shape (rows,)."""

    @property
    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for first in range(0, len(self.labels), CHUNK):
            yield self.values[first : first + CHUNK], self.labels[first : first + CHUNK]


class DetachedHead:
    """From the vector that the head's first module reads to the logits.

    The model's own forward pass computes it, on texts of a single token, in which all that comes
    before the head returns again what it returned once, and the head's first module reads vectors.
    So whatever the model does between the modules of its head is done.
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
        """The module of the head that is called first; known once a row was read."""
        self._is_flat = True
        """Whether the head reads one vector a text, not one a token."""
        self._token = 0
        """What the texts of a single token are made of."""
        self._recorded: dict[int, tuple[Batch, Outputs]] = {}
        """By number of rows: texts of a single token, and what the base returned for them."""
        self.parameters = [p for head in heads for p in head.parameters() if p.requires_grad]

    def calibrate(self, task: SequenceClassification, data: Encoded) -> int:
        """Find out by a few rows what the head reads; returns how wide the vector is. Raises
        ValueError where the detached head has other logits than the model."""
        rows = list(range(len(data.ids)))
        self._token = data.ids[0][-1]
        with torch.no_grad():
            vectors, logits = self._read(task, data, rows)
            detached = self.logits(task, vectors).float()
        if (detached - logits).abs().max() > TOLERANCE * logits.abs().max():
            raise ValueError("the head's logits depend on more than the vector that it reads")
        return int(vectors.shape[-1])

    def vectors(self, task: SequenceClassification, data: Encoded, beat: Beat) -> Vectors:
        """What the head reads of every row."""

        def read(rows: list[int]) -> NDArray[np.float32]:
            values: NDArray[np.float32] = self._read(task, data, rows)[0].cpu().numpy()
            return values

        values = torch.from_numpy(each_row(read, task, data, beat))
        device = self.parameters[0].device
        return Vectors(task, values.to(device), torch.as_tensor(data.labels).to(device))

    def _read(
        self, task: SequenceClassification, data: Encoded, rows: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors that the head reads of the rows, and the logits that the model then has.

        Where the head is given every token's vector, it reads the one that the logits change with.
        """
        inputs: list[torch.Tensor] = []

        def watch(head: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if inputs:  # a later module of the head
                return None
            torch.set_grad_enabled(True)  # from here on, until the context below ends
            self._first = head
            inputs.append(args[0].detach().float().requires_grad_())
            return inputs[0], *args[1:]

        handles = [head.register_forward_pre_hook(watch) for head in self._heads]
        try:
            with torch.no_grad(), self._scoring():
                logits = task.logits(self._model, data, rows).float()
                total = logits.sum()
        finally:
            for handle in handles:
                handle.remove()
        (given,) = inputs
        self._is_flat = given.ndim == 2
        if self._is_flat:
            return given.detach(), logits.detach()
        (slope,) = torch.autograd.grad(total, given)
        # Where the logits have no slope, they do not depend on the token's vector.
        is_read = slope.abs().sum(dim=-1) > 0
        if (is_read.sum(dim=1) != 1).any():
            raise ValueError("the head reads more than one vector of a text")
        return given.detach()[is_read], logits.detach()

    def logits(self, task: SequenceClassification, vectors: torch.Tensor) -> torch.Tensor:
        """The logits of vectors, shape (rows, classes)."""
        count = len(vectors)
        # Few counts occur: that of a full chunk, and one for the rest of each set of rows.
        if count not in self._recorded:
            texts = Encoded(((self._token,),) * count, np.zeros(count, dtype=np.int64))
            batch = task.batch(self._model, texts, range(count))
            with torch.no_grad(), self._scoring():
                self._recorded[count] = batch, self._before_head(batch)
        batch, outputs = self._recorded[count]
        read = vectors if self._is_flat else vectors[:, None]
        with _returning(outputs):
            handle = self._first.register_forward_pre_hook(lambda _, args: (read, *args[1:]))
            try:
                return task.logits_of(self._model, batch)
            finally:
                handle.remove()

    def first_layer(self, vectors: Vectors) -> torch.nn.Linear | None:
        """The linear layer that reads the vectors as they are; None where none does."""
        rows = vectors.values[:2]
        found: list[torch.nn.Linear] = []

        def note(layer: torch.nn.Linear, args: tuple[torch.Tensor, ...]) -> None:
            if torch.equal(args[0].reshape(-1), rows.reshape(-1)):
                found.append(layer)

        parts = [part for head in self._heads for part in head.modules()]
        layers = [part for part in parts if isinstance(part, torch.nn.Linear)]
        handles = [layer.register_forward_pre_hook(note) for layer in layers]
        try:
            with torch.no_grad():
                self.logits(vectors.task, rows)
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else None

    def _before_head(self, batch: Batch) -> Outputs:
        """What the outermost modules that hold no part of the head return before it is called."""
        outputs: Outputs = {}
        is_head_reached: list[bool] = []

        def note(module: torch.nn.Module, _: Any, output: Any) -> None:
            if not is_head_reached:
                outputs[module] = output

        handles = [module.register_forward_hook(note) for module in self._outermost(self._model)]
        handles.append(
            self._first.register_forward_pre_hook(lambda *_: is_head_reached.append(True))
        )
        try:
            self._model(**batch)
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    def _outermost(self, module: torch.nn.Module) -> Iterator[torch.nn.Module]:
        """The largest modules with parameters that hold no part of the head."""
        for child in module.children():
            if child in self._heads:
                continue
            if any(part in self._heads for part in child.modules()):
                yield from self._outermost(child)
            elif list(child.parameters()):
                yield child


@contextmanager
def _returning(outputs: Outputs) -> Iterator[None]:
    """In the block, these modules return these outputs, whatever they are called with."""
    before = {module: module.__dict__.get("forward") for module in outputs}
    for module, output in outputs.items():
        module.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for module, own in before.items():
            del module.forward
            if own is not None:  # a library had put one there before
                module.forward = own
