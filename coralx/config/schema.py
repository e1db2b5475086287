"""The shape of a config file: frozen models, unknown keys refused, every default written here."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    field_validator,
    model_validator,
)

from coralx.config.metrics import CATALOGUE, check_metric
from coralx.config.rules import check_rule


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _exact(value: Any) -> Any:
    """Floats become the decimal that was written, so that 0.1 is a tenth."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def _plain_number(value: Decimal) -> float | int:
    return int(value) if value == value.to_integral_value() else float(value)


Exact = Annotated[
    Decimal, BeforeValidator(_exact), PlainSerializer(_plain_number, return_type=float | int)
]
MetricName = Annotated[str, BeforeValidator(check_metric)]
Column = str | Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Fraction_ = Annotated[float, Field(ge=0.0, lt=1.0)]


# -- what is tuned, on what ----------------------------------------------------------------------


class Experiment(Section):
    """The run's name and the seed of every draw."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42


class Model(Section):
    """`base`: hub id, local folder, or `builtin:<name>`."""

    base: str | None = None
    task: Literal["sequence-classification"] = "sequence-classification"
    max_length: Annotated[int, Field(ge=4)] = 128


class Data(Section):
    """Where examples come from. Files: csv, tsv, json, jsonl, parquet; else hub id or builtin."""

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
    labels: tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    limit: Count | None = None
    steps_per_epoch: Count | None = None

    @model_validator(mode="after")
    def _columns_are_reachable(self) -> Data:
        if not self.header and not (isinstance(self.text, int) and isinstance(self.label, int)):
            raise ValueError("without a header, `text` and `label` are column numbers, from 0")
        if self.labels is not None and len(self.labels) < 2:
            raise ValueError("`labels` needs at least two classes, the negative one first")
        return self


# -- what is searched ----------------------------------------------------------------------------


class FloatRange(Section):
    """A number in [low, high], drawn on a log scale if `log`."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        if not self.low < self.high:
            raise ValueError(f"`low` ({self.low:g}) must be below `high` ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs `low` above 0, found {self.low:g}")
        return self


class IntRange(Section):
    """A whole number in [low, high], drawn on a log scale if `log`."""

    low: Count
    high: Count
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        if not self.low < self.high:
            raise ValueError(f"`low` ({self.low}) must be below `high` ({self.high})")
        return self


class IntChoices(Section):
    """Whole numbers to choose from; neighbours in size count as similar."""

    choices: Annotated[tuple[Count, ...], Field(min_length=1)]


class FloatChoices(Section):
    """Numbers to choose from; neighbours in size count as similar."""

    choices: Annotated[tuple[float, ...], Field(min_length=1)]


class BoolChoices(Section):
    """A switch."""

    choices: Annotated[tuple[bool, ...], Field(min_length=1)]


Modules = Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)]


class ModuleChoices(Section):
    """Sets of linear modules to adapt: lists of names, or `all-linear`."""

    choices: Annotated[tuple[Modules, ...], Field(min_length=1)]


def _kind(value: Any) -> str:
    """A gene is a list of choices or a range; told apart by the key that only one of them has."""
    has_choices = "choices" in value if isinstance(value, dict) else hasattr(value, "choices")
    return "choices" if has_choices else "range"


IntGene = Annotated[
    Annotated[IntChoices, Tag("choices")] | Annotated[IntRange, Tag("range")],
    Discriminator(_kind),
]
FloatGene = Annotated[
    Annotated[FloatChoices, Tag("choices")] | Annotated[FloatRange, Tag("range")],
    Discriminator(_kind),
]


class SearchSpace(Section):
    """Genes and where they may lie. The first five are always searched, the others on request."""

    rank: IntGene = IntChoices(choices=(2, 4, 8, 16, 32))
    alpha_ratio: FloatGene = FloatChoices(choices=(1.0, 2.0))
    dropout: FloatGene = FloatRange(low=0.0, high=0.2)
    learning_rate: FloatGene = FloatRange(low=1e-4, high=5e-3, log=True)
    target_modules: ModuleChoices = ModuleChoices(choices=("all-linear",))
    weight_decay: FloatGene | None = None
    warmup_ratio: FloatGene | None = None
    batch_size: IntGene | None = None
    use_rslora: BoolChoices | None = None
    use_dora: BoolChoices | None = None

    @model_validator(mode="after")
    def _values_make_sense(self) -> SearchSpace:
        limits = {
            "alpha_ratio": (0.0, None, False),
            "dropout": (0.0, 1.0, True),
            "learning_rate": (0.0, None, False),
            "weight_decay": (0.0, None, True),
            "warmup_ratio": (0.0, 1.0, True),
        }
        for name, (floor, ceiling, floor_allowed) in limits.items():
            gene = getattr(self, name)
            if gene is None:
                continue
            values = gene.choices if isinstance(gene, FloatChoices) else (gene.low, gene.high)
            low, high = min(values), max(values)
            if low < floor or (low == floor and not floor_allowed):
                relation = "at least" if floor_allowed else "above"
                raise ValueError(f"`{name}` must be {relation} {floor:g}, found {low:g}")
            if ceiling is not None and high >= ceiling:
                raise ValueError(f"`{name}` must be below {ceiling:g}, found {high:g}")
        return self


class Evolution(Section):
    """`inherit`: what a child takes from its better parent where rank and modules agree."""

    population_size: Annotated[int, Field(ge=2)] = 8
    generations: Count = 2
    inherit: Literal["off", "adapter", "adapter+optimizer"] = "adapter"
    crossover_probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    mutation_probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3


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


# -- the schedule --------------------------------------------------------------------------------

Rule = Annotated[str, BeforeValidator(check_rule)]

SANITY_RULES = ("gradient_norm > 5.0", "loss_slope > 0")
QUALITY_RULES = ("auroc < 0.55",)
EARLY_EVAL_LIMIT = 512
"""Validation rows that stages before the last one look at, unless they say otherwise."""


class TrainingStage(Section):
    """One rung. `eval_limit` rows of validation are scored, all of them where it is null.

    The last stage is always scored on the whole split: its `eval_limit` is refused.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    epoch_budget: Annotated[Exact, Field(gt=0)]
    data_percentage: Annotated[Exact, Field(gt=0, le=100)]
    survival_rate: Annotated[Exact, Field(gt=0, le=1)]
    stop_when: tuple[Rule, ...] | None = None
    proxy_metrics: tuple[MetricName, ...] = ()
    promote_by: MetricName | None = None
    eval_limit: Count | None = None


def _published_stages() -> tuple[TrainingStage, ...]:
    table = (
        ("S0_sanity", "0.05", "5", "1.0"),
        ("S1_shakeout", "0.3", "20", "0.5"),
        ("S2_serious", "1.0", "100", "0.25"),
        ("S3_finisher", "2.0", "100", "0.1"),
    )
    return tuple(
        TrainingStage(
            name=name,
            epoch_budget=Decimal(epochs),
            data_percentage=Decimal(percentage),
            survival_rate=Decimal(rate),
        )
        for name, epochs, percentage, rate in table
    )


class HyperbandConfig(Section):
    """The schedule; without `enable_hyperband` everyone trains to the end."""

    enable_hyperband: bool = True
    training_stages: Annotated[tuple[TrainingStage, ...], Field(min_length=1)] = Field(
        default_factory=_published_stages
    )

    @field_validator("training_stages", mode="after")
    @classmethod
    def _write_defaults_out(cls, stages: tuple[TrainingStage, ...]) -> tuple[TrainingStage, ...]:
        """Stop rules and `eval_limit` depend on a stage's place: first, middle or last."""
        filled = []
        for place, stage in enumerate(stages):
            last = place == len(stages) - 1
            rules = () if last else SANITY_RULES if place == 0 else QUALITY_RULES
            update: dict[str, Any] = {}
            if stage.stop_when is None:
                update["stop_when"] = rules
            if stage.eval_limit is None and not last:
                update["eval_limit"] = EARLY_EVAL_LIMIT
            filled.append(stage.model_copy(update=update))
        return tuple(filled)

    @model_validator(mode="after")
    def _budgets_never_fall(self) -> HyperbandConfig:
        names = [stage.name for stage in self.training_stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages share the name {twice[0]!r}")
        previous = None
        for stage in self.training_stages:
            share = stage.epoch_budget * stage.data_percentage
            if previous is not None and share < previous[1]:
                raise ValueError(
                    f"stage {stage.name!r} trains up to {share / 100:f} epochs of the whole data, "
                    f"less than {previous[1] / 100:f} of {previous[0]!r} before it; "
                    "epoch_budget x data_percentage must not fall from stage to stage"
                )
            previous = (stage.name, share)
        if self.training_stages[-1].eval_limit is not None:
            raise ValueError(
                f"the last stage ({self.training_stages[-1].name!r}) is scored on the whole "
                "validation split; remove its eval_limit"
            )
        return self


# -- training and running ------------------------------------------------------------------------


class Training(Section):
    """`warmup_ratio` is a share of the horizon; precision `auto` measures bf16 autocast."""

    batch_size: Count = 16
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: Fraction_ = 0.06
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Runtime(Section):
    """`auto` workers: one a GPU; on a CPU one a core, at most four, if memory allows."""

    backend: Literal["auto", "peft", "simulated"] = "auto"
    workers: Literal["auto"] | Count = "auto"
    threads_per_worker: Literal["auto"] | Count = "auto"
    keep_checkpoints: Literal["needed", "all"] = "needed"


class Config(Section):
    """A whole config; every section and key has a default."""

    experiment: Experiment = Experiment()
    model: Model = Model()
    data: Data = Data()
    search_space: SearchSpace = SearchSpace()
    evolution: Evolution = Evolution()
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = (
        Objective(metric="auroc", direction="maximize"),
        Objective(metric="trainable_parameters", direction="minimize"),
    )
    hyperband_config: HyperbandConfig = HyperbandConfig()
    training: Training = Training()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _objectives_are_distinct(self) -> Config:
        names = [objective.metric for objective in self.objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"objective {twice[0]!r} is listed twice")
        return self
