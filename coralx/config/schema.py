"""The shape of a config file: every section, with every default written here."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from coralx.config.crossover import CheckpointCrossover
from coralx.config.metrics import (
    CATALOGUE,
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
from coralx.config.section import Count, Exact, MetricName, Section
from coralx.config.space import SearchSpace, SeedGenome
from coralx.config.stages import HyperbandConfig, TrainingStage, with_defaults

Labels = Annotated[
    tuple[str, ...], BeforeValidator(lambda label: [label] if isinstance(label, str) else label)
]
Positive = Annotated[float, Field(gt=0.0)]
Place = Annotated[int, Field(ge=0)]
Column = str | Place
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
    encoder, the label words of a causal language model, or supervised fine-tuning of one."""

    base: str | None = None
    task: Task = "sequence-classification"
    max_length: Annotated[int, Field(ge=4)] = 128


class Data(Section):
    """Where examples come from. Files: csv, tsv, json, jsonl, parquet; else hub id or builtin.

    `prompt` is what label-tokens lets the model read, `{text}` standing for the text; `chat` puts
    prompts into the tokenizer's chat template. sft reads `messages_column` where the table has one
    and no `prompt_column`.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    header: bool = True
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str = "utf-8"
    text: Column = "text"
    label: Column = "label"
    prompt: str = "Text: {text}\nLabel:"
    chat: bool = False
    prompt_column: Column = "prompt"
    completion_column: Column = "completion"
    messages_column: str = "messages"
    labels: tuple[str, ...] | dict[str, Labels] | None = None
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
        twice = sorted({label for label in listed if listed.count(label) > 1})
        if twice:
            raise ValueError(f"the label {twice[0]!r} is listed twice")
        return labels


class Evolution(Section):
    """`seed_genomes`: recipes of your own that open generation 0. `inherit`: what a child takes
    from its better parent where rank and modules agree; with `resize_adapters` also where they do
    not, grown by zero output or shrunk by truncated SVD. `checkpoint_crossover`: how often it
    starts from both parents. `pbt_quantile`: the share of a stage's survivors, the poorest, that
    give way to copies of the best with other hyperparameters (population-based training).
    `patience`: generations without a move of hypervolume or diversity after which the search
    ends. `elite_fraction`: the share of the population (rounded down) that is carried over without
    retraining; only the rest of a later generation is newly bred. `selection`: what spreads a
    front, crowding (nsga2) or, for three objectives and more, reference points (nsga3)."""

    population_size: Annotated[int, Field(ge=2)] = 8
    generations: Count = 2
    patience: Count | None = None
    inherit: Literal["off", "adapter", "adapter+optimizer"] = "adapter"
    resize_adapters: bool = False
    checkpoint_crossover: CheckpointCrossover = CheckpointCrossover()
    pbt_quantile: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    seed_genomes: tuple[SeedGenome, ...] = ()
    elite_fraction: Annotated[Exact, Field(ge=0, lt=1)] = Decimal(0)
    selection: Literal["nsga2", "nsga3"] = "nsga2"
    crossover_probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    mutation_probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3

    @model_validator(mode="after")
    def _has_checkpoints_to_cross(self) -> Evolution:
        if self.checkpoint_crossover.is_on and self.inherit == "off":
            raise ValueError(
                "checkpoint_crossover starts children from their parents' checkpoints, but "
                "`inherit` is off; set `inherit: adapter`, or mask and merge to 0"
            )
        return self

    def births(self, generation: int) -> int:
        """How many genomes are born in a generation: the elite of a later one are not."""
        elite = int(self.elite_fraction * self.population_size) if generation else 0
        return max(1, self.population_size - elite)

    @property
    def fewest_births(self) -> int:
        """How many genomes are born in the generation with the fewest: the last."""
        return self.births(self.generations - 1)


class Objective(Section):
    """What is optimised; `direction` defaults to the metric's natural one."""

    metric: MetricName
    direction: Literal["maximize", "minimize"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _natural_direction(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("direction") is None:
            metric = CATALOGUE.get(str(data.get("metric")))
            if metric is not None:
                return {**data, "direction": metric.direction}
        return data


class Training(Section):
    """`warmup_ratio` is a share of the horizon; precision `auto` measures bf16 autocast."""

    batch_size: Count = 16
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.06
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Runtime(Section):
    """`auto` workers: one a GPU; on a CPU one a core, at most four, if memory allows.

    `quantization` stores a language model's weights in 4 or 8 bits (bitsandbytes, CUDA).
    `gradient_checkpointing` trades time for memory; auto: for language models on a GPU.
    `executor: in-process` trains in the driver's own process, for debuggers. `baseline` trains the
    default recipe to the end beside the search, counted apart; `verify_front` likewise those of the
    front that started from the weights of others, from scratch. `devices`: the GPUs to use, by
    number within the visible ones.
    """

    backend: Literal["auto", "unsloth", "peft", "simulated"] = "auto"
    executor: Literal["auto", "in-process", "local"] = "auto"
    workers: Literal["auto"] | Count = "auto"
    threads_per_worker: Literal["auto"] | Count = "auto"
    devices: Literal["auto"] | Annotated[tuple[Place, ...], Field(min_length=1)] = "auto"
    quantization: Literal["none", "4bit", "8bit"] = "none"
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    keep_checkpoints: Literal["needed", "all"] = "needed"
    baseline: bool = False
    verify_front: bool = False

    @field_validator("devices", mode="after")
    @classmethod
    def _are_different_devices(cls, devices: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if not isinstance(devices, str) and len(set(devices)) < len(devices):
            raise ValueError("each GPU is listed once; `workers` says how many share them")
        return devices

    @model_validator(mode="after")
    def _can_choose_devices(self) -> Runtime:
        if self.executor == "in-process" and self.devices != "auto":
            raise ValueError(
                "`devices` is for worker processes; with `executor: in-process` set "
                "CUDA_VISIBLE_DEVICES"
            )
        return self


class Budget(Section):
    """Limits that end a run cleanly with its best so far; totals over all resumes.

    `max_minutes` are minutes of wall time, `max_gpu_hours` hours of each GPU in use, `max_steps`
    trained optimizer steps.
    """

    max_minutes: Positive | None = None
    max_steps: Count | None = None
    max_gpu_hours: Positive | None = None


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
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = Field(
        default_factory=lambda data: tuple(
            Objective(metric=metric) for metric in default_objectives(data["model"].task)
        )
    )
    constraints: tuple[Constraint, ...] = ()
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
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _metrics_of(stage: TrainingStage) -> list[str]:
    """Every metric that a stage names."""
    rules = [parse_rule(rule).metric for rule in stage.stop_when or ()]
    promote_by = [stage.promote_by] if stage.promote_by else []
    return [*rules, *stage.proxy_metrics, *promote_by]
