"""One batch before a run begins: can the genomes of the search space be trained on this base?

What would fail for every genome fails here, with its cause, and before anything is paid. A trial
leaves nothing behind: no adapter, no gradient, no draw of random numbers.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from coralx.backends.memory_estimate import extremes, lowest_and_highest
from coralx.backends.protocol import Say
from coralx.config.schema import Config
from coralx.errors import ConfigError, OutOfMemory, SetupError
from coralx.records.genomes import Genes, Genome
from coralx.records.run_facts import Footprint
from coralx.rng import derive_seed
from coralx.search.space import space_of
from coralx.tasks.protocol import Encoded
from coralx.training import adapters
from coralx.training.base_errors import explaining, modules_of
from coralx.training.base_model import Base
from coralx.training.inference import generated_answers, predict
from coralx.training.out_of_memory import free, in_parts
from coralx.training.task_data import Material
from coralx.training.task_parts import EvalSplit, TaskPart

SWITCHES = ("use_rslora",)
"""Genes that decide how a layer is adapted, and not how much memory that takes."""

Context = Callable[[], AbstractContextManager[Any]]


def ends_of(config: Config, footprint: Footprint) -> tuple[Genes, Genes]:
    """The smallest genome of the search space, with as little of everything as there may be, and
    the largest, with as much: dropout, DoRA, rsLoRA and all layers, if it has them."""
    space = space_of(config)
    small, large = extremes(space, footprint, config.model.max_length)
    ends = {n: lowest_and_highest(space.genes[n]) for n in SWITCHES if n in space.genes}
    lowest = {name: low for name, (low, _) in ends.items()}
    highest = {name: high for name, (_, high) in ends.items()}
    return replace(small, **lowest), replace(large, **highest)


@dataclass(frozen=True)
class Trial:
    """Trains one batch and scores, by the code that jobs use."""

    config: Config
    base: Base
    model: PeftModel
    material: Material
    autocast: Context
    """In which jobs train."""
    scoring: Context
    """In which jobs score."""
    default: str
    """The adapter that is active when none is tried."""

    def run(self, footprint: Footprint, say: Say) -> tuple[str, ...]:
        """Try the smallest and the largest genome; returns warnings.

        Raises ConfigError with the cause where one cannot be trained, SetupError where not even a
        single row of the smallest fits into memory. A largest one that does not fit is a warning:
        genomes fail one by one, and others may fit.
        """
        say("trying one batch with the smallest and the largest genome")
        small, large = ends_of(self.config, footprint)
        device = self.model.device
        with _drawing_nothing(device):
            try:
                self._try("smallest", small, ("validation", "test"))
            except OutOfMemory as error:
                raise SetupError(
                    f"the smallest genome of the search space cannot be trained: {error.message}",
                    error.hint,
                ) from None
            try:
                if large != small:
                    self._try("largest", large, ("validation",))
            except OutOfMemory as error:
                return (f"the largest genome of the search space fails here: {error.message}",)
        return ()

    def _try(self, size: str, genes: Genes, splits: tuple[str, ...]) -> None:
        genome = Genome(f"trial-{size}", 0, genes)
        who = f"the {size} genome of the search space ({_described(genes)})"
        try:
            with explaining(self.config, who, genes):
                adapters.add(self.model, genome, genes.shape, self.base)
                for part in self.material.parts:
                    self._train(part)
                    for name in splits:
                        self._score(part, part.splits[name])
        finally:
            self._drop(adapters.name_of(genome))

    def _drop(self, adapter: str) -> None:
        self.model.set_adapter(self.default)
        if adapter in self.model.peft_config:
            self.model.delete_adapter(adapter)
        if self.model.device.type != "cpu":  # there it costs half a second, and gives nothing back
            free()

    def _train(self, part: TaskPart) -> None:
        """Forward and backward of the longest and the shortest training row."""
        self.model.train()
        torch.manual_seed(derive_seed(self.config.experiment.seed, "trial"))

        def work(rows: list[int]) -> None:
            with self.autocast():
                loss = part.task.loss(self.model, part.train, rows)
            if not torch.isfinite(loss):
                raise self._not_finite(f"the training loss ({loss.item():g})")
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
                raise self._not_finite("the gradient of the training loss")
            self.model.zero_grad(set_to_none=True)

        in_parts(work, _ends(part.train))

    def _score(self, part: TaskPart, split: EvalSplit) -> None:
        """The longest and the shortest of a split's rows, and of what belongs to it."""
        tables = [split.rows, split.clean]
        if part.answers is None:
            tables.append(split.attacks)
        elif split.attacks is not None:
            brief = copy.copy(part.answers)  # one token shows whether prompts fit
            brief.max_new_tokens = 1
            rows = _picked(split.attacks, _ends(split.attacks))
            generated_answers(self.model, brief, rows, self.scoring)
        for table in tables:
            if table is not None and table.ids:  # not every split has attacks or clean rows
                rows = _picked(table, _ends(table))
                if not np.isfinite(predict(self.model, part.task, rows, self.scoring)).all():
                    raise self._not_finite("a score")

    def _not_finite(self, what: str) -> ConfigError:
        """What to raise where numbers of the untuned base are not finite: a fresh adapter changes
        none of them."""
        bad = (
            name.removeprefix("base_model.model.")
            for name, parameter in self.model.named_parameters()
            if not torch.isfinite(parameter).all()
        )
        where = next(bad, None)
        why, way_out = "it overflows", "Set training.precision: fp32, or use another base."
        if where is not None:
            why = f"the weights in {where.replace('.base_layer', '')} are not finite"
            way_out = "Download or save the base again, or use another one."
        return ConfigError(
            "config",
            [
                f"model.base: before anything is trained, {what} is not a finite number: {why}, "
                "so no genome can be trained"
            ],
            way_out,
        )


def _described(genes: Genes) -> str:
    extras = [f"dropout {genes.dropout:g}"] if genes.dropout else []
    extras += ["DoRA"] if genes.use_dora else []
    return ", ".join([f"rank {genes.rank} on {modules_of(genes)}", *extras])


def _ends(table: Encoded) -> list[int]:
    """The places of the longest and of the shortest row."""
    lengths = table.lengths
    return list(dict.fromkeys([int(np.argmax(lengths)), int(np.argmin(lengths))]))


def _picked(table: Encoded, rows: list[int]) -> Encoded:
    """Some of the rows."""
    targets = tuple(table.targets[row] for row in rows) if table.targets else ()
    return Encoded(tuple(table.ids[row] for row in rows), table.labels[rows], targets)


@contextmanager
def _drawing_nothing(device: torch.device) -> Iterator[None]:
    """Put every global source of random numbers back to where it was."""
    numbers, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numbers)
        random.setstate(python)
