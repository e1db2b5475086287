"""Each task of a run, encoded: its training rows, the splits it is judged by, and its judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from coralx.config.data import TaskData, key_of
from coralx.config.schema import Config
from coralx.config.tables import Attacks
from coralx.data.examples import Example
from coralx.data.splits import Examples
from coralx.errors import ConfigError
from coralx.metrics.row_scores import Labels
from coralx.metrics.safety import refuses
from coralx.tasks.generation import Answers
from coralx.tasks.label_tokens import LabelTokens
from coralx.tasks.protocol import Encoded, Task
from coralx.tasks.sequence_classification import SequenceClassification
from coralx.tasks.sft import SupervisedFineTuning
from coralx.training import user_functions as functions
from coralx.training.base_model import Base
from coralx.training.input_length import longest_input

Judge = Callable[[str, str], bool]
"""Whether an answer to a prompt counts as an attack that failed."""


@dataclass(frozen=True)
class EvalSplit:
    """A split that a task is judged by."""

    rows: Encoded
    examples: tuple[Example, ...]
    """The rows as they were read."""
    groups: Labels | None = None
    """Each row's group by index; None: the data has no such column."""
    attacks: Encoded | None = None
    prompts: tuple[str, ...] = ()
    """The attacks as they were read."""
    sources: Labels | None = None
    """Of each attack that rewrites a row, that row, by index; None: they are none's."""
    clean: Encoded | None = None
    """The clean hold-out; None: there is none."""
    harmless: tuple[str, ...] = ()
    """The clean hold-out as it was read."""

    def first(self, limit: int | None) -> EvalSplit:
        """The first `limit` rows, attacks and clean rows; all of them for None."""
        return EvalSplit(
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
class TaskPart:
    """One task of a run: how it is trained and scored, and what it is judged by."""

    name: str
    """As in `data.tasks`; "" where they are not named."""
    task: Task
    labels: tuple[str, ...]
    train: Encoded
    splits: Mapping[str, EvalSplit]
    """`validation` and `test`."""
    answers: Answers | None = None
    """Asks for answers to the attacks; None where attacks are classified as rows are."""
    judge: Judge | None = None
    """Decides on the answers."""


def task_parts(
    config: Config, examples: Mapping[str, Examples], base: Base, device: torch.device
) -> Iterator[TaskPart]:
    """Every task of the config with its rows encoded for the base.

    Raises ConfigError where answers are longer than the base reads, or a judge cannot be found.
    """
    logits = 0
    for name, read in examples.items():
        source = config.data.sources[name]
        # Classifiers share one head: each task has as many of its logits as it has classes.
        end = logits + len(read.labels)
        task = _task(config, source, name, base, read.labels, slice(logits, end), device)
        logits = end
        answers, judge = _judging(config, name, source.attacks, base, device)
        splits = {
            split: _eval_split(split, read, task, answers or task, source.group is not None)
            for split in ("validation", "test")
        }
        yield TaskPart(name, task, read.labels, task.encode(read.train), splits, answers, judge)


def _eval_split(
    split: str, read: Examples, task: Task, attacked: Task | Answers, has_groups: bool
) -> EvalSplit:
    """A split encoded; `attacked` is what reads the attacks."""
    rows: tuple[Example, ...] = getattr(read, split)
    attacks, clean = read.attacks.get(split, ()), read.clean.get(split, ())
    encoded = task.encode(rows)
    groups = None
    if has_groups:
        # Numbered over both splits, so that a group has one number in both.
        number = {group: place for place, group in enumerate(_groups(read))}
        groups = np.asarray([number[row.group] for row in rows])
    return EvalSplit(
        encoded,
        # Rows that were left out have no scores.
        tuple(rows[place] for place in encoded.kept) if encoded.kept else rows,
        groups,
        attacked.encode(attacks) if attacks else None,
        tuple(attack.text for attack in attacks),
        _sources(attacks),
        task.encode(clean) if clean else None,
        tuple(row.text for row in clean),
    )


def _sources(attacks: Sequence[Example]) -> Labels | None:
    """The row that each attack rewrites; None where some are of no row's making."""
    sources = [attack.source for attack in attacks if attack.source is not None]
    return np.asarray(sources) if sources and len(sources) == len(attacks) else None


def _groups(read: Examples) -> list[str]:
    return sorted({example.group for example in (*read.validation, *read.test)})


def _task(
    config: Config,
    source: TaskData,
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
            return SupervisedFineTuning(base.tokenizer, config, device, fused_loss=base.fused_loss)


def _judging(
    config: Config, name: str, attacks: Attacks | None, base: Base, device: torch.device
) -> tuple[Answers | None, Judge | None]:
    """Who answers attacks, and who judges the answers; nobody, where attacks are classified."""
    if attacks is None:
        return None, None
    # A chat model answers attacks, so its answer is judged; a classifier is to flag them.
    kind = attacks.judge or ("refusal" if config.model.task == "sft" else "flagged")
    if kind == "flagged":
        return None, None
    judge = refuses if kind == "refusal" else functions.judge(config, kind)
    length = config.model.max_length
    longest = longest_input(base.model)
    if longest is not None and length + attacks.max_new_tokens > longest:
        key = key_of(name, "attacks.max_new_tokens")
        raise ConfigError(
            "config",
            [
                f"{key}: {attacks.max_new_tokens} tokens of answer after a prompt of up to "
                f"model.max_length ({length}) are more than the base reads ({longest})"
            ],
            f"Lower {key} or model.max_length: together at most {longest}.",
        )
    return Answers(base.tokenizer, length, attacks.max_new_tokens, device), judge
