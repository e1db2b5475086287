"""What a run trains and scores on: all its tasks' encoded rows, and the order of training rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import torch

from coralx.config.data import key_of
from coralx.config.gene_forms import IntChoices
from coralx.config.metric_catalogue import OF_TASK
from coralx.config.schema import Config
from coralx.data import order_revision1 as revision1
from coralx.data.batches import Batches
from coralx.data.order import subset_size
from coralx.data.splits import Examples
from coralx.errors import ConfigError
from coralx.metrics.robustness import LEAST_ROWS, judged_groups
from coralx.records.run_facts import REVISION
from coralx.tasks.label_tokens import LabelTokens
from coralx.tasks.multi_task import MultiTask, mixed
from coralx.tasks.protocol import Encoded, Trainable
from coralx.text import counted
from coralx.training.base_model import Base
from coralx.training.task_parts import EvalSplit, TaskPart, task_parts


class Material:
    """What a run trains and scores on, training rows in the run's one order; with several tasks
    theirs are mixed.

    Raises ConfigError where rows are too few or too long, and where a judge cannot be found.
    """

    def __init__(
        self,
        config: Config,
        examples: Mapping[str, Examples],
        base: Base,
        device: torch.device,
        revision: int = REVISION,
    ) -> None:
        self._config = config
        self._revision = revision
        self.parts = tuple(task_parts(config, examples, base, device))
        first, *others = self.parts
        self.task: Trainable = first.task
        self.train = first.train
        if others:
            self.task = MultiTask([part.task for part in self.parts])
            trained = [part.train for part in self.parts]
            self.train = mixed(trained, config.experiment.seed, revision)
        _check_batches(config, len(self.train.ids))
        for part in self.parts:
            _check_groups(config, part)
        self._batches: dict[int, Batches | revision1.Batches] = {}

    @property
    def _splits(self) -> list[EvalSplit]:
        """The splits that tasks are judged by: each task's validation, then its test split."""
        return [split for part in self.parts for split in part.splits.values()]

    @property
    def _tables(self) -> dict[str, list[Encoded]]:
        """The encoded rows of all tasks, by kind."""
        tables: dict[str, list[Encoded]] = {"train": [part.train for part in self.parts]}
        for split in ("validation", "test"):
            tables[split] = [part.splits[split].rows for part in self.parts]
        tables["attacks"] = [s.attacks for s in self._splits if s.attacks is not None]
        tables["clean"] = [s.clean for s in self._splits if s.clean is not None]
        return tables

    @property
    def rows(self) -> dict[str, int]:
        """How many there are of each kind; no entry for attacks and a hold-out that are not."""
        names = {"clean": "clean hold-out"}
        return {
            names.get(kind, kind): _total(tables, lambda table: len(table.ids))
            for kind, tables in self._tables.items()
            if tables
        }

    @property
    def tables(self) -> list[Encoded]:
        """All encoded rows, a table for each kind of each task."""
        return [table for tables in self._tables.values() for table in tables]

    @property
    def largest_token(self) -> int:
        """The highest id of a token in a text or a label word."""
        tokenized = [table.ids for table in self.tables]
        tokenized += [part.task.words for part in self.parts if isinstance(part.task, LabelTokens)]
        return max((max(ids) for rows in tokenized for ids in rows if ids), default=0)

    def batches(self, batch_size: int) -> Batches | revision1.Batches:
        """The batches of a size, made once."""
        if batch_size not in self._batches:
            train, seed = self.train, self._config.experiment.seed
            stages = self._config.hyperband_config.training_stages
            shares = [float(stage.data_percentage / 100) for stage in stages]
            ends = [subset_size(len(train.ids), share) for share in shares]
            # A run ends by the order of rows that it began with.
            kind = revision1.Batches if self._revision < 2 else Batches
            self._batches[batch_size] = kind(train.strata, train.lengths, batch_size, ends, seed)
        return self._batches[batch_size]

    def fingerprint(self) -> str:
        """Changes with the encoded examples and their order."""
        digest = hashlib.sha256()
        for table in self.tables:
            # Without targets as before there were any, so that runs of earlier versions can resume.
            digest.update(repr((table.ids, table.targets) if table.targets else table.ids).encode())
            digest.update(table.labels.tobytes())
        for split in self._splits:
            if split.groups is not None:
                digest.update(split.groups.tobytes())
        return digest.hexdigest()

    def warnings(self) -> Iterator[str]:
        """Warnings about rows that `max_length` cut or kept out, and about label words that make
        scores hard to compare."""
        limit = f"model.max_length ({self._config.model.max_length} tokens)"
        yield from self._warning(f"were cut to {limit}", lambda table: table.cut)
        yield from self._warning(
            f"were left out, too long for {limit}", lambda table: table.left_out
        )
        yield from self._warning(
            "were left out, as they have nothing to learn but the end of the text",
            lambda table: table.empty,
        )
        for part in self.parts:
            if isinstance(part.task, LabelTokens):
                yield from part.task.oddities()

    def _warning(self, what: str, count: Callable[[Encoded], int]) -> Iterator[str]:
        """How many rows of each kind "were cut", say, if any; `count` says how many of a table."""
        counts = []
        for kind, tables in self._tables.items():
            if affected := _total(tables, count):
                read = _total(tables, lambda table: len(table.ids) + table.left_out + table.empty)
                counts.append(f"{affected} of {read} {kind}")
        if counts:
            yield f"{', '.join(counts)} rows {what}"


def _total(tables: list[Encoded], count: Callable[[Encoded], int]) -> int:
    return sum(count(table) for table in tables)


def _check_groups(config: Config, part: TaskPart) -> None:
    """Raise ConfigError where `robustness` is named, and no group of a task's is large enough."""
    validation = part.splits["validation"]
    named = {f"robustness{OF_TASK}{part.name}", "robustness"} & set(config.named_metrics)
    if validation.groups is None or not named:
        return
    if not judged_groups(validation.rows.labels, validation.groups, len(part.labels)):
        groups = counted(len(set(validation.groups.tolist())), "group")
        raise ConfigError(
            "config",
            [
                f"{key_of(part.name, 'group')}: robustness cannot be computed: of {groups}, none "
                f"has {LEAST_ROWS} validation rows of every class"
            ],
            "Add validation rows, group by something coarser, or leave robustness out.",
        )


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
            [f"{key}: {largest}, but data.train has only {counted(rows, 'row')}"],
            f"Add rows, or lower {key}.",
        )
