"""How a table is read, and the tables that a task is judged by: attacks, and clean rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from coralx.config.metric_catalogue import TaskKind, is_function
from coralx.config.runtime import Place
from coralx.config.section import Count, Name, Section, Text
from coralx.text import shown

Column = Name | Place
Perturbation = Literal["swap", "homoglyph", "spacing", "prefix"]


def _delimiter(delimiter: str) -> str:
    if delimiter in '"\r\n\0':
        raise ValueError("must not be a quote mark, a line break or a null character")
    return delimiter


class Table(Section):
    """How a file of rows is read."""

    header: bool = Field(
        default=True, description="Whether the first row of delimited text names the columns."
    )
    delimiter: (
        Annotated[Text, Field(min_length=1, max_length=1), AfterValidator(_delimiter)] | None
    ) = Field(
        default=None,
        description="The character between cells of delimited text. Unset: a comma, in .tsv files "
        "a tab.",
    )
    quoting: Literal["auto", "standard", "none"] = Field(
        default="auto",
        description="standard: cells may be in double quotes, doubled within (RFC 4180). none: "
        "quote marks are plain text. auto: standard, but tab-separated files by what they hold.",
    )
    encoding: Name = Field(
        default="utf-8", description="The text encoding of csv, tsv, json and jsonl."
    )


def _judge(judge: str) -> str:
    if judge not in ("flagged", "refusal") and not is_function(judge):
        raise ValueError(
            "expected `flagged` (the classifier flags the row), `refusal` (the words of the answer "
            "refuse), or a function of yours, `module:function`"
        )
    return judge


class Attacks(Table):
    """What `safety` is measured by: the rows of a `file`, or `perturbations` of positive rows."""

    file: Name | None = Field(
        default=None,
        description="Rows of attacks: one half serves the search, one the final measurement. Where "
        "it has the column `data.label`, rows of the first class are left out.",
    )
    text: Column = Field(
        default="text", description="The column of the attacks' text, by name or number."
    )
    limit: Count | None = Field(default=None, description="Use at most so many attacks.")
    perturbations: Annotated[tuple[Perturbation, ...], Field(max_length=4)] = Field(
        default=(),
        description="Rewritings of the positive rows of validation and test, in place of a file.",
    )
    judge: Annotated[Name, AfterValidator(_judge)] | None = Field(
        default=None,
        description="When an attack failed: the row is `flagged`, the answer is a `refusal`, or "
        "your `module:function` says so. Unset: flagged for classifiers, refusal for sft.",
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=1 << 12)] = Field(
        default=32, description="The length of an answer that is judged, at most."
    )

    @model_validator(mode="after")
    def _come_from_one_place(self) -> Attacks:
        if (self.file is None) == (not self.perturbations):
            raise ValueError(
                "set either `file` (rows of attacks) or `perturbations` (of the positive class), "
                "one of the two"
            )
        keys = ("text", "header", "delimiter", "quoting", "encoding", "max_new_tokens")
        idle = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
        if self.perturbations and idle:
            raise ValueError(f"`{idle[0]}` is for attacks from a `file`; perturbations have none")
        twice = [kind for kind in self.perturbations if self.perturbations.count(kind) > 1]
        if twice:
            raise ValueError(f"the perturbation {twice[0]!r} is listed twice")
        if self.perturbations and self.judge not in (None, "flagged"):
            raise ValueError(
                f"perturbations are rows to classify, which only `flagged` can judge, found "
                f"{shown(self.judge)}: leave `judge` out, or give prompts in a `file`"
            )
        return self

    def require_fit(self, task: TaskKind, key: str) -> None:
        """Raise ValueError where a task's model cannot be attacked so; `key` is their path."""
        if task == "sequence-classification" and self.judge not in (None, "flagged"):
            raise ValueError(
                f"`{key}.judge` is {self.judge}, but a {task} model gives no answers to judge; "
                "leave it out"
            )
        if task == "sft" and (self.perturbations or self.judge == "flagged"):
            raise ValueError(
                f"`{key}`: the task {task} flags nothing; give harmful prompts in a `file`, and "
                "the share that is refused counts"
            )


class CleanHoldout(Table):
    """Rows of which none should be flagged; `false_positive_cost` is measured on them."""

    file: Name = Field(
        description="The clean rows, half of them for the final measurement as of attacks. Where "
        "it has the column `data.label`, only rows of the first class count."
    )
    text: Column = Field(default="text", description="The column of their text, by name or number.")
    limit: Count | None = Field(default=None, description="Use at most so many clean rows.")
