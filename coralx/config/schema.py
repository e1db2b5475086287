"""The shape of a config file: every section, with every default written here."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from coralx.config.evolution import Evolution, Objective
from coralx.config.metrics import (
    CAUSAL,
    CLASSIFICATION,
    Task,
    default_objectives,
    offered_metrics,
)
from coralx.config.rules import (
    check_constraint,
    parse_constraint,
    parse_rule,
    refuse_contradictions,
)
from coralx.config.runtime import Budget, Place, Runtime, Training
from coralx.config.section import Count, Name, Section, Text
from coralx.config.space import SearchSpace
from coralx.config.stages import HyperbandConfig, TrainingStage, with_defaults
from coralx.printable import shown

Labels = Annotated[
    tuple[Name, ...],
    Field(max_length=1_000),
    BeforeValidator(lambda label: [label] if isinstance(label, str) else label),
]
Column = Name | Place
Constraint = Annotated[str, BeforeValidator(check_constraint)]
"""What must hold of a genome, `metric op number`; op is one of < <= > >=."""


class Experiment(Section):
    """The run's name and the seed of every draw."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42

    @field_validator("name", mode="after")
    @classmethod
    def _is_no_keyword(cls, name: str) -> str:
        if name == "latest":
            raise ValueError("`latest` means the newest run, so no run can be called so")
        return name


class Model(Section):
    """`base`: hub id, local folder, or `builtin:<name>`. `task`: a classification head on an
    encoder, the label words of a causal language model, or supervised fine-tuning of one.
    `trust_remote_code`: run the Python files that a base brings along; without it none is run."""

    base: Name | None = None
    task: Task = "sequence-classification"
    max_length: Annotated[int, Field(ge=4, le=1 << 24)] = 128
    trust_remote_code: bool = False


class Data(Section):
    """Where examples come from. Files: csv, tsv, json, jsonl, parquet; else hub id or builtin.

    `prompt` is what label-tokens lets the model read, `{text}` standing for the text; `chat` puts
    prompts into the tokenizer's chat template. sft reads `messages_column` where the table has one
    and no `prompt_column`.
    """

    train: Name | None = None
    validation: Name | None = None
    test: Name | None = None
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    header: bool = True
    delimiter: Annotated[Text, Field(min_length=1, max_length=1)] | None = None
    encoding: Name = "utf-8"
    text: Column = "text"
    label: Column = "label"
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
    steps_per_epoch: Count | None = None

    @model_validator(mode="after")
    def _columns_are_reachable(self) -> Data:
        pairs = ((self.text, self.label), (self.prompt_column, self.completion_column))
        if not self.header and not any(isinstance(a, int) and isinstance(b, int) for a, b in pairs):
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


class Config(Section):
    """A whole config; every section and key has a default.

    `constraints` must hold: a genome that misses one is worse than any that meets all, and of two
    that miss some the one that misses by less is better (see `search/constraints.py`).
    """

    experiment: Experiment = Experiment()
    model: Model = Model()
    data: Data = Data()
    search_space: SearchSpace = SearchSpace()
    evolution: Evolution = Evolution()
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=100)] = Field(
        default_factory=lambda data: tuple(
            Objective(metric=metric) for metric in default_objectives(data["model"].task)
        )
    )
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=100)] = ()
    hyperband_config: HyperbandConfig = HyperbandConfig()
    training: Training = Training()
    runtime: Runtime = Runtime()
    budget: Budget = Budget()

    @field_validator("data", mode="after")
    @classmethod
    def _is_read_by_the_task(cls, data: Data, info: ValidationInfo) -> Data:
        """Keys that would be ignored are refused."""
        if "model" not in info.data:
            return data
        task, unset = info.data["model"].task, Data()
        readers = {"prompt": ("label-tokens",), "chat": CAUSAL, "labels": CLASSIFICATION}
        for key, tasks in readers.items():
            if task not in tasks and getattr(data, key) != getattr(unset, key):
                raise ValueError(f"`{key}` is for {' and '.join(tasks)}; model.task is {task}")
        return data

    @field_validator("objectives", mode="after")
    @classmethod
    def _are_distinct_and_offered(
        cls, objectives: tuple[Objective, ...], info: ValidationInfo
    ) -> tuple[Objective, ...]:
        names = [objective.metric for objective in objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice")
        if "model" in info.data:  # else it was refused, and its task is not known
            offered_metrics(info.data["model"].task, names)
        return objectives

    @field_validator("constraints", mode="after")
    @classmethod
    def _can_be_met(cls, constraints: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        refuse_contradictions(constraints)
        if "model" in info.data:
            names = [parse_constraint(text).metric for text in constraints]
            offered_metrics(info.data["model"].task, names)
        return constraints

    @field_validator("hyperband_config", mode="after")
    @classmethod
    def _stages_are_complete(
        cls, hyperband: HyperbandConfig, info: ValidationInfo
    ) -> HyperbandConfig:
        """Stop rules and `eval_limit` written out; every metric is one that the task offers."""
        if "model" not in info.data:
            return hyperband
        task = info.data["model"].task
        stages = with_defaults(hyperband.training_stages, task)
        for stage in stages:
            try:
                offered_metrics(task, _metrics_of(stage))
            except ValueError as error:
                raise ValueError(f"stage {stage.name!r}: {error}") from None
        return hyperband.model_copy(update={"training_stages": stages})

    @model_validator(mode="after")
    def _schedules_agree(self) -> Config:
        """Ways of scheduling that exclude each other are refused."""
        schedule, evolution = self.hyperband_config, self.evolution
        problems = []
        if schedule.brackets > evolution.population_size:
            problems.append(
                f"`hyperband_config.brackets` is {schedule.brackets}, but "
                f"`evolution.population_size` is {evolution.population_size}: each bracket needs "
                "a genome"
            )
        if schedule.promotion == "asynchronous" and evolution.pbt_quantile:
            problems.append(
                "`evolution.pbt_quantile` replaces genomes at a stage's end, which "
                "`hyperband_config.promotion: asynchronous` does not have: leave out one of the two"
            )
        if schedule.promotion == "asynchronous" and evolution.patience is not None:
            problems.append(
                "`evolution.patience` counts generations, which overlap under "
                "`hyperband_config.promotion: asynchronous`: leave out one of the two"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _metrics_of(stage: TrainingStage) -> list[str]:
    """Every metric that a stage names."""
    rules = [parse_rule(rule).metric for rule in stage.stop_when or ()]
    promote_by = [stage.promote_by] if stage.promote_by else []
    return [*rules, *stage.proxy_metrics, *promote_by]
