"""The section `data`: what each task of a run is trained on, judged by and attacked with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from coralx.config.section import Count, Name, Text
from coralx.config.tables import Attacks, CleanHoldout, Column, Table
from coralx.text import shown

Labels = Annotated[tuple[Name, ...], Field(max_length=1_000)]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

METRIC_DATA = {
    "attacks": "rows of attacks (a file), or perturbations of the positive class such as "
    "[swap, homoglyph, spacing, prefix]",
    "group": "the column by which rows are grouped",
}
"""What the keys hold that a metric may need, in words."""


def _label_text(label: Any) -> str:
    """A label as a cell has it. Raises ValueError for a value that can be written in several ways,
    such as 1.5, and so may not be the text of the cell."""
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label)
    if not isinstance(label, str):
        can_be_quoted = not isinstance(label, list | dict)
        way_out = " (put it in quotes, as the data has it)" if can_be_quoted else ""
        raise ValueError(f"labels are text, found {shown(label)}{way_out}")
    return label


def _label_texts(labels: Any) -> list[str]:
    """The labels of a class as text: a list of them, or one alone."""
    several = labels if isinstance(labels, list | tuple) else [labels]
    return [_label_text(label) for label in several]


class TaskData(Table):
    """What one task learns from and is judged by."""

    train: Name | None = Field(
        default=None,
        description="Training rows: a csv, tsv, json, jsonl or parquet file, a hub id, or "
        "`builtin:tweets`. Only a simulation does without.",
    )
    validation: Name | None = Field(
        default=None,
        description="Rows that steer the search. Unset: `validation_fraction` of the training rows "
        "is split off.",
    )
    test: Name | None = Field(
        default=None,
        description="Rows for the final measurement only. Unset: `test_fraction` of the training "
        "rows is split off.",
    )
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.1,
        description="The share of rows split off where `validation` is unset, stratified.",
    )
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.1, description="The share of rows split off where `test` is unset, stratified."
    )
    text: Column = Field(
        default="text",
        description="Classification: the column of the text, by name or number from 0.",
    )
    label: Column = Field(
        default="label",
        description="Classification: the column of the label, by name or number from 0.",
    )
    group: Column | None = Field(
        default=None, description="The column of a row's group, for the metric `robustness`."
    )
    prompt: Text = Field(
        default="Text: {text}\nLabel:",
        description="label-tokens: what the model reads before the label word. Holds {text} once.",
    )
    chat: bool = Field(
        default=False,
        description="Put prompts into the tokenizer's chat template, as a user's turn.",
    )
    prompt_column: Column = Field(default="prompt", description="sft: the column of the prompt.")
    completion_column: Column = Field(
        default="completion", description="sft: the column of the completion, which is learnt."
    )
    messages_column: Name = Field(
        default="messages",
        description="sft: the column of chats, read where the table has no `prompt_column`.",
    )
    labels: (
        Annotated[tuple[Name, ...], Field(max_length=1_000)]
        | Annotated[dict[Name, Labels], Field(max_length=1_000)]
        | None
    ) = Field(
        default=None,
        description="The classes, the negative one first; or a mapping from class to the labels it "
        "covers. Unset: those that the training rows hold, sorted.",
    )
    limit: Count | None = Field(
        default=None, description="Train on at most so many rows, stratified by label."
    )
    attacks: Attacks | None = Field(
        default=None,
        description="Attacks for `safety`. A path or a list of perturbations is short for it.",
    )
    clean_holdout: CleanHoldout | None = Field(
        default=None, description="Rows that nothing should flag. A path is short for it."
    )

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
        """Whether rows are read by it, and not only by the tasks that take over its keys."""
        return True

    @model_validator(mode="after")
    def _columns_are_reachable(self) -> TaskData:
        pairs = ((self.text, self.label), (self.prompt_column, self.completion_column))
        numbered = any(isinstance(a, int) and isinstance(b, int) for a, b in pairs)
        # Which of the two pairs is read depends on the task, which is not known here.
        if self.is_read and not self.header and not numbered:
            raise ValueError(
                "without a header, `text` and `label` (sft: `prompt_column` and "
                "`completion_column`) must be column numbers, counted from 0"
            )
        return self

    @field_validator("prompt", mode="after")
    @classmethod
    def _holds_the_text_once(cls, prompt: str) -> str:
        if prompt.count("{text}") != 1:
            raise ValueError("must contain {text} exactly once, where the text of a row goes")
        return prompt

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_text(cls, labels: Any) -> Any:
        """Labels are compared with the text of cells. From YAML they come as they are written; from
        Python whole numbers are accepted, which can be written in one way only."""
        if isinstance(labels, dict):
            return {_label_text(name): _label_texts(covered) for name, covered in labels.items()}
        if isinstance(labels, list | tuple):
            return _label_texts(labels)
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
        every = list(labels)
        if isinstance(labels, dict):
            every = [label for covered in labels.values() for label in covered]
        twice = sorted(label for label, count in Counter(every).items() if count > 1)
        if twice:
            raise ValueError(f"the label {shown(twice[0])} is listed twice")
        return labels

    @property
    def files(self) -> dict[str, str]:
        """Every table that it names, by key."""
        by_key = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "attacks.file": self.attacks.file if self.attacks else None,
            "clean_holdout.file": self.clean_holdout.file if self.clean_holdout else None,
        }
        return {key: name for key, name in by_key.items() if name is not None}


class Data(TaskData):
    """The examples of a run."""

    tasks: Annotated[dict[TaskName, TaskData], Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="Several tasks at once, by name, each with the keys of `data`. What stands "
        "beside `tasks` holds for all that do not say otherwise.",
    )
    steps_per_epoch: Count | None = Field(
        default=None,
        description="A simulation reads no rows: so many steps an epoch has. Unset: by `limit`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _tasks_share_the_rest(cls, data: Any) -> Any:
        """A task takes over the keys beside `tasks` that it does not set itself."""
        if not isinstance(data, dict) or not isinstance(data.get("tasks"), dict):
            return data
        shared = {key: value for key, value in data.items() if key in TaskData.model_fields}
        tasks = {
            name: {**shared, **task} if isinstance(task, dict) else task
            for name, task in data["tasks"].items()
        }
        return {**data, "tasks": tasks}

    @property
    def is_read(self) -> bool:
        return self.tasks is None

    @property
    def sources(self) -> Mapping[str, TaskData]:
        """Each task's source by its name; the one of a run without named tasks is called ""."""
        return self.tasks or {"": self}

    @property
    def known_rows(self) -> int:
        """How many training rows there are by the limits alone; 0 where a task has no limit."""
        limits = [source.limit for source in self.sources.values()]
        return sum(limit or 0 for limit in limits) if all(limits) else 0


def key_of(task: str, key: str) -> str:
    """The dotted path of a key of a task's source."""
    return f"data.tasks.{task}.{key}" if task else f"data.{key}"
