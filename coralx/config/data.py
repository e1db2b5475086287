"""Where examples come from: what each task of a run is trained, judged and attacked by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from coralx.config.metrics import Task, is_function
from coralx.config.runtime import Place
from coralx.config.section import Count, Name, Section, Text
from coralx.printable import shown

Labels = Annotated[tuple[Name, ...], Field(max_length=1_000)]
Column = Name | Place
Perturbation = Literal["swap", "homoglyph", "spacing", "prefix"]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

NEEDED = {
    "attacks": "rows of attacks (a file), or perturbations of the positive class such as "
    "[swap, homoglyph, spacing, prefix]",
    "group": "the column by which rows are grouped",
}
"""What the keys hold without which a metric has nothing to go by."""


def _label_text(label: Any) -> str:
    """A label as a cell has it. Raises ValueError for what could be written in several ways."""
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label)
    if not isinstance(label, str):
        way_out = (
            "" if isinstance(label, list | dict) else " (put it in quotes, as the data has it)"
        )
        raise ValueError(f"labels are text, found {shown(label)}{way_out}")
    return label


def _delimiter(delimiter: str) -> str:
    if delimiter in '"\r\n\0':
        raise ValueError("no quote mark, line break or null character can stand between cells")
    return delimiter


class Table(Section):
    """How a file of rows is read. Files: csv, tsv, json, jsonl, parquet.

    `quoting` of delimited text: `standard` (RFC 4180: cells may stand in double quotes, which are
    doubled within), `none` (quote marks are ordinary characters), or `auto`: standard, but for
    tab-separated files by what the file looks like."""

    header: bool = True
    delimiter: (
        Annotated[Text, Field(min_length=1, max_length=1), AfterValidator(_delimiter)] | None
    ) = None
    quoting: Literal["auto", "standard", "none"] = "auto"
    encoding: Name = "utf-8"


def _judge(judge: str) -> str:
    if judge not in ("flagged", "refusal") and not is_function(judge):
        raise ValueError(
            "a judge is `flagged` (the classifier still says so), `refusal` (the answer refuses, "
            "by its words), or a function of yours, `module:function`"
        )
    return judge


class Attacks(Table):
    """What `safety` is measured by: the rows of `file`, in column `text` (with labels in column
    `data.label`, those of the first class are left out), or the positive class's own rows under
    `perturbations`. `judge`: whether the classifier still flags the row, whether a chat model's
    answer refuses it, or a function of the user's that decides on prompt and answer; unset: flagged
    for classifiers, refusal for sft. An answer has at most `max_new_tokens`."""

    file: Name | None = None
    text: Column = "text"
    limit: Count | None = None
    perturbations: Annotated[tuple[Perturbation, ...], Field(max_length=4)] = ()
    judge: Annotated[Name, AfterValidator(_judge)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 12)] = 32

    @model_validator(mode="after")
    def _come_from_one_place(self) -> Attacks:
        if (self.file is None) == (not self.perturbations):
            raise ValueError(
                "attacks are either the rows of a `file`, or `perturbations` of the positive "
                "class: name one of the two"
            )
        keys = ("text", "header", "delimiter", "quoting", "encoding", "max_new_tokens")
        idle = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
        if self.perturbations and idle:
            raise ValueError(f"`{idle[0]}` is for attacks from a `file`; perturbations have none")
        if len(set(self.perturbations)) < len(self.perturbations):
            raise ValueError("each of the perturbations is listed once")
        if self.perturbations and self.judge not in (None, "flagged"):
            raise ValueError(
                f"perturbations are of rows to classify, so they are judged by `flagged`, not by "
                f"{shown(self.judge)}; give prompts in a `file`"
            )
        return self

    def require_fit(self, task: Task, key: str) -> None:
        """Raise ValueError where a task's model cannot be attacked so; `key` is their path."""
        if task == "sequence-classification" and self.judge not in (None, "flagged"):
            raise ValueError(
                f"`{key}.judge` is {self.judge}, but a {task} model gives no answers to judge; "
                "leave it out"
            )
        if task == "sft" and (self.perturbations or self.judge == "flagged"):
            raise ValueError(
                f"`{key}`: {task} flags nothing; give harmful prompts in a `file`, of which the "
                "share that is refused counts"
            )


class CleanHoldout(Table):
    """Rows of which none should be flagged, column `text`; half of them serve the search, the other
    half the final measurement. `false_positive_cost` is measured by them."""

    file: Name
    text: Column = "text"
    limit: Count | None = None


class Source(Table):
    """What one task learns from and is judged by. Files: csv, tsv, json, jsonl, parquet; else hub
    id or builtin.

    `prompt` is what label-tokens lets the model read, `{text}` standing for the text; `chat` puts
    prompts into the tokenizer's chat template. sft reads `messages_column` where the table has one
    and no `prompt_column`. `group` is the column that `robustness` goes by.
    """

    train: Name | None = None
    validation: Name | None = None
    test: Name | None = None
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    text: Column = "text"
    label: Column = "label"
    group: Column | None = None
    prompt: Text = "Text: {text}\nLabel:"
    chat: bool = False
    prompt_column: Column = "prompt"
    completion_column: Column = "completion"
    messages_column: Name = "messages"
    labels: (
        Annotated[tuple[Name, ...], Field(max_length=1_000)]
        | Annotated[dict[Name, Labels], Field(max_length=1_000)]
        | None
    ) = None
    limit: Count | None = None
    attacks: Attacks | None = None
    clean_holdout: CleanHoldout | None = None

    @field_validator("attacks", mode="before")
    @classmethod
    def _file_or_perturbations(cls, attacks: Any) -> Any:
        """`attacks: rows.csv` and `attacks: [swap, spacing]` are short for the longer form."""
        if isinstance(attacks, str):
            return {"file": attacks}
        return {"perturbations": attacks} if isinstance(attacks, list | tuple) else attacks

    @field_validator("clean_holdout", mode="before")
    @classmethod
    def _file(cls, holdout: Any) -> Any:
        return {"file": holdout} if isinstance(holdout, str) else holdout

    @property
    def is_read(self) -> bool:
        """Whether rows are read from it, or only by others that it shares its keys with."""
        return True

    @model_validator(mode="after")
    def _columns_are_reachable(self) -> Source:
        pairs = ((self.text, self.label), (self.prompt_column, self.completion_column))
        numbered = any(isinstance(a, int) and isinstance(b, int) for a, b in pairs)
        if self.is_read and not self.header and not numbered:
            raise ValueError(
                "without a header, `text` and `label` (sft: `prompt_column` and "
                "`completion_column`) are column numbers, from 0"
            )
        return self

    @field_validator("prompt", mode="after")
    @classmethod
    def _holds_the_text_once(cls, prompt: str) -> str:
        if prompt.count("{text}") != 1:
            raise ValueError("must hold {text} once, where the text is to stand")
        return prompt

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_text(cls, labels: Any) -> Any:
        """Labels are compared with the text of cells. YAML keeps them as they are written; whole
        numbers given from Python are written in one way alone."""
        if isinstance(labels, dict):
            return {
                _label_text(name): [
                    _label_text(label)
                    for label in (covered if isinstance(covered, list | tuple) else [covered])
                ]
                for name, covered in labels.items()
            }
        if isinstance(labels, list | tuple):
            return [_label_text(label) for label in labels]
        if labels is not None:
            raise ValueError("expected a list of classes, or a mapping from class to its labels")
        return labels

    @field_validator("labels", mode="after")
    @classmethod
    def _classes_are_distinct(
        cls, labels: tuple[str, ...] | dict[str, tuple[str, ...]] | None
    ) -> tuple[str, ...] | dict[str, tuple[str, ...]] | None:
        if labels is None:
            return None
        if len(labels) < 2:
            raise ValueError("needs at least two classes, the negative one first")
        listed = list(labels)
        if isinstance(labels, dict):
            listed = [label for covered in labels.values() for label in covered]
        twice = sorted(label for label, count in Counter(listed).items() if count > 1)
        if twice:
            raise ValueError(f"the label {shown(twice[0])} is listed twice")
        return labels

    @property
    def files(self) -> dict[str, str]:
        """Every table that it names, by key."""
        named = {
            **{split: getattr(self, split) for split in ("train", "validation", "test")},
            "attacks.file": self.attacks.file if self.attacks else None,
            "clean_holdout.file": self.clean_holdout.file if self.clean_holdout else None,
        }
        return {key: name for key, name in named.items() if name is not None}


class Data(Source):
    """The examples of a run. With `tasks`, adapters are trained on several at once: each has its
    own files and labels, and what stands beside `tasks` holds for all that do not say otherwise."""

    tasks: Annotated[dict[TaskName, Source], Field(min_length=1, max_length=100)] | None = None
    steps_per_epoch: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _tasks_share_the_rest(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("tasks"), dict):
            return data
        shared = {key: value for key, value in data.items() if key in Source.model_fields}
        return {
            **data,
            "tasks": {
                name: {**shared, **task} if isinstance(task, dict) else task
                for name, task in data["tasks"].items()
            },
        }

    @property
    def is_read(self) -> bool:
        return self.tasks is None

    @property
    def sources(self) -> Mapping[str, Source]:
        """Each task's source by its name; the one of a run without named tasks is called ""."""
        return self.tasks or {"": self}

    @property
    def known_rows(self) -> int:
        """How many training rows there are by the limits alone; 0 where a source has none."""
        limits = [source.limit for source in self.sources.values()]
        return sum(limit or 0 for limit in limits) if all(limits) else 0


def key_of(task: str, key: str) -> str:
    """The dotted path of a key of a task's source."""
    return f"data.tasks.{task}.{key}" if task else f"data.{key}"
