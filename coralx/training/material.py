"""What there is to train and score on: the encoded splits, and the order of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from coralx.config.schema import Config
from coralx.config.space import IntChoices
from coralx.data.instruction_tuning import InstructionTuning
from coralx.data.label_tokens import LabelTokens
from coralx.data.sources import Examples
from coralx.data.subsets import bucketed_order, subset_size
from coralx.data.tasks import Encoded, SequenceClassification, Task
from coralx.errors import ConfigError
from coralx.training.base import Base


def task_of(config: Config, base: Base, labels: Sequence[str], device: torch.device) -> Task:
    """The config's task for a base's tokenizer."""
    match config.model.task:
        case "sequence-classification":
            return SequenceClassification(base.tokenizer, config.model.max_length, device)
        case "label-tokens":
            return LabelTokens(base.tokenizer, config, labels, device)
        case "sft":
            return InstructionTuning(base.tokenizer, config, device, fused_loss=base.fused_loss)


class Material:
    """The splits as a task encodes them, training rows in the run's one order.

    Raises ConfigError where rows are too few or too long.
    """

    def __init__(self, config: Config, examples: Examples, task: Task) -> None:
        self._config = config
        self.splits: Mapping[str, Encoded] = {
            "train": task.encode(examples.train),
            "validation": task.encode(examples.validation),
            "test": task.encode(examples.test),
        }
        self.train = self.splits["train"]
        _check_batches(config, len(self.train.ids))
        self._orders: dict[int, NDArray[np.int64]] = {}

    @property
    def rows(self) -> dict[str, int]:
        return {name: len(data.ids) for name, data in self.splits.items()}

    def order(self, batch_size: int) -> NDArray[np.int64]:
        """The bucketed data order for a batch size, made once."""
        if batch_size not in self._orders:
            rows = len(self.train.ids)
            stages = self._config.hyperband_config.training_stages
            ends = [subset_size(rows, float(stage.data_percentage / 100)) for stage in stages]
            seed = self._config.experiment.seed
            self._orders[batch_size] = bucketed_order(
                np.arange(rows), self.train.lengths, batch_size, ends, seed
            )
        return self._orders[batch_size]

    def fingerprint(self) -> str:
        """Changes with the encoded examples and their order."""
        digest = hashlib.sha256()
        for split in self.splits.values():
            digest.update(repr((split.ids, split.targets) if split.targets else split.ids).encode())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()

    def losses_of_text(self) -> list[str]:
        """Warnings about rows that `max_length` cut or kept out."""
        limit = f"model.max_length ({self._config.model.max_length} tokens)"
        found = []
        for what, counts in (
            ("were cut to", {name: data.cut for name, data in self.splits.items()}),
            ("were left out, too long for", {n: d.left_out for n, d in self.splits.items()}),
        ):
            listed = [
                f"{count} of {len(self.splits[name].ids) + self.splits[name].left_out} {name}"
                for name, count in counts.items()
                if count
            ]
            if listed:
                found.append(f"{', '.join(listed)} rows {what} {limit}")
        return found


def _check_batches(config: Config, rows: int) -> None:
    """Raise ConfigError where a batch would hold a row twice."""
    gene = config.search_space.batch_size
    largest = config.training.batch_size
    if gene is not None:
        largest = max(gene.choices) if isinstance(gene, IntChoices) else gene.high
    if rows < largest:
        key = "training.batch_size" if gene is None else "search_space.batch_size"
        raise ConfigError(
            "config",
            [f"{key}: {largest}, but data.train has only {rows} rows"],
            "Give more rows, or make the batches smaller.",
        )
