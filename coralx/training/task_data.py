"""What there is to train and score on: each task's encoded splits, and the order of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from coralx.config.data import Source, key_of
from coralx.config.metric_catalogue import OF_TASK
from coralx.config.schema import Config
from coralx.config.search_space import IntChoices
from coralx.config.tables import Attacks
from coralx.data import order_revision1 as revision1
from coralx.data.batches import Batches
from coralx.data.examples import Example
from coralx.data.order import subset_size
from coralx.data.splits import Examples
from coralx.errors import ConfigError
from coralx.metrics.robustness import LEAST_ROWS, judged_groups
from coralx.metrics.row_scores import Labels
from coralx.metrics.safety import refuses
from coralx.records.run_facts import REVISION
from coralx.tasks.generation import Answers
from coralx.tasks.label_tokens import LabelTokens
from coralx.tasks.multi_task import Mixture, mixed
from coralx.tasks.protocol import Encoded, Task, Trainable
from coralx.tasks.sequence_classification import SequenceClassification
from coralx.tasks.sft import InstructionTuning
from coralx.text import counted
from coralx.training import user_functions as functions
from coralx.training.base_model import Base
from coralx.training.input_length import longest_input

Judge = Callable[[str, str], bool]
"""Whether an answer to a prompt counts as an attack that failed."""


@dataclass(frozen=True)
class Judged:
    """A split that a task is judged by. `examples` are its rows as they were read, `groups` theirs
    by index (None: it has no such column), `attacks` and `clean` what belongs to the split beside
    its rows (None: nothing); `prompts` and `harmless` are those as they were read. `sources`: of
    each attack that is a rewriting, the row that it was made of, by index."""

    rows: Encoded
    examples: tuple[Example, ...]
    groups: Labels | None = None
    attacks: Encoded | None = None
    prompts: tuple[str, ...] = ()
    sources: Labels | None = None
    clean: Encoded | None = None
    harmless: tuple[str, ...] = ()

    def first(self, limit: int | None) -> Judged:
        """The first `limit` rows, attacks and clean rows; all of them for None."""
        return Judged(
            self.rows.first(limit),
            self.examples[:limit],
            None if self.groups is None else self.groups[:limit],
            self.attacks.first(limit) if self.attacks else None,
            self.prompts[:limit],
            None if self.sources is None else self.sources[:limit],
            self.clean.first(limit) if self.clean else None,
            self.harmless[:limit],
        )

    def described(self, task: str, split: str) -> Iterator[dict[str, object]]:
        """What each row was, then each attack and each clean row, in the order of the scores."""
        for example in self.examples:
            own = {"text": example.text, "label": example.label, "group": example.group}
            yield {"task": task, "split": split, "kind": "row", **own}
        for kind, texts in (("attack", self.prompts), ("clean", self.harmless)):
            for text in texts:
                yield {"task": task, "split": split, "kind": kind, "text": text}


@dataclass(frozen=True)
class Part:
    """One task of a run: how it is trained and scored, and what it is judged by. `answers`, if a
    chat model's answers to the attacks are judged, asks for them, and `judge` decides on them."""

    name: str
    task: Task
    labels: tuple[str, ...]
    train: Encoded
    splits: Mapping[str, Judged]
    answers: Answers | None = None
    judge: Judge | None = None


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
        self.parts = tuple(_parts(config, examples, base, device))
        first, *others = self.parts
        self.task: Trainable = first.task
        self.train = first.train
        if others:
            self.task = Mixture([part.task for part in self.parts])
            trained = [part.train for part in self.parts]
            self.train = mixed(trained, config.experiment.seed, revision)
        _check_batches(config, len(self.train.ids))
        for part in self.parts:
            _check_groups(config, part)
        self._batches: dict[int, Batches | revision1.Batches] = {}

    @property
    def _tables(self) -> dict[str, list[Encoded]]:
        """What is read, by kind: of all tasks."""
        return {
            "train": [part.train for part in self.parts],
            **{
                split: [part.splits[split].rows for part in self.parts]
                for split in ("validation", "test")
            },
            **{
                kind: [
                    table
                    for part in self.parts
                    for judged in part.splits.values()
                    if (table := getattr(judged, kind)) is not None
                ]
                for kind in ("attacks", "clean")
            },
        }

    @property
    def rows(self) -> dict[str, int]:
        """How many there are of each kind; no entry for attacks and a hold-out that are not."""
        names = {"clean": "clean hold-out"}
        return {
            names.get(kind, kind): sum(len(table.ids) for table in tables)
            for kind, tables in self._tables.items()
            if tables
        }

    @property
    def tables(self) -> list[Encoded]:
        """Everything that is read of a text."""
        return [table for tables in self._tables.values() for table in tables]

    @property
    def largest_token(self) -> int:
        """The highest id of a token in a text or a label word."""
        words = [part.task.words for part in self.parts if isinstance(part.task, LabelTokens)]
        read = [*(table.ids for table in self.tables), *words]
        return max((max(ids) for rows in read for ids in rows if ids), default=0)

    def batches(self, batch_size: int) -> Batches | revision1.Batches:
        """The batches of a size, made once."""
        if batch_size not in self._batches:
            train, seed = self.train, self._config.experiment.seed
            stages = self._config.hyperband_config.training_stages
            shares = [float(stage.data_percentage / 100) for stage in stages]
            ends = [subset_size(len(train.ids), share) for share in shares]
            kind = revision1.Batches if self._revision < 2 else Batches
            self._batches[batch_size] = kind(train.strata, train.lengths, batch_size, ends, seed)
        return self._batches[batch_size]

    def fingerprint(self) -> str:
        """Changes with the encoded examples and their order."""
        digest = hashlib.sha256()
        for table in self.tables:
            digest.update(repr((table.ids, table.targets) if table.targets else table.ids).encode())
            digest.update(table.labels.tobytes())
        for judged in (judged for part in self.parts for judged in part.splits.values()):
            if judged.groups is not None:
                digest.update(judged.groups.tobytes())
        return digest.hexdigest()

    def losses_of_text(self) -> list[str]:
        """Warnings about rows that `max_length` cut or kept out, and about label words that make
        scores hard to compare."""
        limit = f"model.max_length ({self._config.model.max_length} tokens)"
        found = []
        for what, count in (
            (f"were cut to {limit}", lambda table: table.cut),
            (f"were left out, too long for {limit}", lambda table: table.left_out),
            ("were left out, as they have nothing to learn but an end", lambda table: table.empty),
        ):
            listed = [
                f"{sum(map(count, tables))} of "
                f"{sum(len(table.ids) + table.left_out + table.empty for table in tables)} {kind}"
                for kind, tables in self._tables.items()
                if any(map(count, tables))
            ]
            if listed:
                found.append(f"{', '.join(listed)} rows {what}")
        tasks = [part.task for part in self.parts]
        return found + [odd for t in tasks if isinstance(t, LabelTokens) for odd in t.oddities()]


def _parts(
    config: Config, examples: Mapping[str, Examples], base: Base, device: torch.device
) -> Iterator[Part]:
    logits = 0
    for name, read in examples.items():
        source = config.data.sources[name]
        end = logits + len(read.labels)
        task = _task(config, source, name, base, read.labels, slice(logits, end), device)
        logits = end
        answers, judge = _judging(config, name, source.attacks, base, device)
        reader = answers or task
        number = {group: i for i, group in enumerate(_groups(read))}
        splits = {}
        for split in ("validation", "test"):
            rows: tuple[Example, ...] = getattr(read, split)
            attacks, clean = read.attacks.get(split, ()), read.clean.get(split, ())
            encoded = task.encode(rows)
            splits[split] = Judged(
                encoded,
                tuple(rows[place] for place in encoded.kept) if encoded.kept else rows,
                np.asarray([number[row.group] for row in rows])
                if source.group is not None
                else None,
                reader.encode(attacks) if attacks else None,
                tuple(attack.text for attack in attacks),
                _sources(attacks),
                task.encode(clean) if clean else None,
                tuple(row.text for row in clean),
            )
        yield Part(name, task, read.labels, task.encode(read.train), splits, answers, judge)


def _sources(attacks: Sequence[Example]) -> Labels | None:
    found = [attack.source for attack in attacks if attack.source is not None]
    return np.asarray(found) if found and len(found) == len(attacks) else None


def _groups(read: Examples) -> list[str]:
    return sorted({example.group for example in (*read.validation, *read.test)})


def _task(
    config: Config,
    source: Source,
    name: str,
    base: Base,
    labels: Sequence[str],
    logits: slice,
    device: torch.device,
) -> Task:
    """A source's task for a base's tokenizer; `logits` are its own ones of a common head."""
    length = config.model.max_length
    match config.model.task:
        case "sequence-classification":
            return SequenceClassification(base.tokenizer, length, device, logits, base.padding)
        case "label-tokens":
            return LabelTokens(base.tokenizer, source, length, labels, device, name)
        case "sft":
            return InstructionTuning(base.tokenizer, config, device, fused_loss=base.fused_loss)


def _judging(
    config: Config, name: str, attacks: Attacks | None, base: Base, device: torch.device
) -> tuple[Answers | None, Judge | None]:
    """Who answers attacks, and who judges the answers; nobody, where attacks are classified."""
    if attacks is None:
        return None, None
    wanted = attacks.judge or ("refusal" if config.model.task == "sft" else "flagged")
    if wanted == "flagged":
        return None, None
    judge = refuses if wanted == "refusal" else functions.judge(config, wanted)
    length = config.model.max_length
    longest = longest_input(base.model)
    if longest is not None and length + attacks.max_new_tokens > longest:
        raise ConfigError(
            "config",
            [
                f"{key_of(name, 'attacks.max_new_tokens')}: {attacks.max_new_tokens} behind a "
                f"prompt of up to model.max_length ({length}) tokens are more than the base reads "
                f"({longest})"
            ],
            "Make one of the two smaller.",
        )
    return Answers(base.tokenizer, length, attacks.max_new_tokens, device), judge


def _check_groups(config: Config, part: Part) -> None:
    """Raise ConfigError where `robustness` is named, and no group of a task's is large enough."""
    judged = part.splits["validation"]
    named = {f"robustness{OF_TASK}{part.name}", "robustness"} & set(config.named_metrics)
    if judged.groups is None or not named:
        return
    if not judged_groups(judged.rows.labels, judged.groups, len(part.labels)):
        raise ConfigError(
            "config",
            [
                f"{key_of(part.name, 'group')}: of "
                f"{counted(len(set(judged.groups.tolist())), 'group')}, none has {LEAST_ROWS} "
                "validation rows of every class, so robustness has no figure"
            ],
            "Give more validation rows, group by something coarser, or leave robustness out.",
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
            "Give more rows, or make the batches smaller.",
        )
