"""The sections `evolution` and `objectives`: how the search breeds, and what it optimises."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from coralx.config.exact_numbers import Exact
from coralx.config.metric_catalogue import Direction, check_metric, metric_entry
from coralx.config.search_space import SeedGenome
from coralx.config.section import Count, MetricName, Name, Section
from coralx.records.derivations import Operator
from coralx.text import shown

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class CheckpointCrossover(Section):
    """How often a child starts from both parents' checkpoints.

    A blend that scores worse than the better parent's weights before any training is dropped."""

    mask: Probability = Field(
        default=0.0,
        description="The probability of taking each module from either parent. With DoRA only "
        "where child and both parents have it.",
    )
    merge: Probability = Field(
        default=0.0,
        description="The probability of a weighted mean of the parents' updates. Never with DoRA, "
        "whose magnitudes have no such mean.",
    )

    @model_validator(mode="after")
    def _are_exclusive(self) -> CheckpointCrossover:
        if self.mask + self.merge > 1.0:
            raise ValueError(
                f"mask ({self.mask:g}) and merge ({self.merge:g}) add up to more than 1, but a "
                "child starts by at most one of them"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether any child can be blended."""
        return self.mask + self.merge > 0.0


class Derive(Section):
    """Adapters made from finished ones without training, and scored like them."""

    share: Annotated[Exact, Field(ge=0, le=1)] = Field(
        default=Fraction(1, 10),
        description="The most that scoring them may cost, as a share of what training has cost so "
        "far; 0 derives none.",
    )
    operators: tuple[Operator, ...] = Field(
        default=("truncate", "compress", "scale"),
        description="`truncate` to a lower rank of the space; `compress` to the best directions of "
        "all modules; `scale` the update; `drop` groups of modules; `soup`: a mean of two to four.",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_a_section(cls, given: Any) -> Any:
        if not isinstance(given, (Mapping, Derive)):
            raise ValueError(
                "expected keys and values, such as `{share: 0.1}`; `{share: 0}` derives none"
            )
        return given

    @field_validator("operators")
    @classmethod
    def _are_named_once(cls, operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
        for operator in operators:
            if operators.count(operator) > 1:
                raise ValueError(f"{operator} is named twice")
        return operators

    @property
    def is_on(self) -> bool:
        """Whether anything can be derived."""
        return self.share > 0 and bool(self.operators)


class Evolution(Section):
    """How the search breeds."""

    population_size: Annotated[int, Field(ge=2, le=1_000)] = Field(
        default=8, description="Genomes in a generation."
    )
    generations: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=2, description="Generations to search for."
    )
    patience: Count | None = Field(
        default=None,
        description="End the search after so many generations in which neither the front's "
        "hypervolume grew by 1 % nor diversity changed by 1 %; see docs/search.md.",
    )
    inherit: Literal["off", "adapter", "adapter+optimizer"] = Field(
        default="adapter",
        description="What a child takes from its better parent.",
    )
    resize_adapters: bool = Field(
        default=True,
        description="Inherit also where rank or modules differ: weights are grown with zero output "
        "or shrunk by truncated SVD.",
    )
    checkpoint_crossover: CheckpointCrossover = Field(
        default=CheckpointCrossover(),
        description="How often a child starts from both parents' checkpoints.",
    )
    derive: Derive = Field(
        default=Derive(),
        description="After a generation's last stage, adapters are derived from finished ones. "
        "Without hyperband none are.",
    )
    pbt_quantile: Annotated[Exact, Field(ge=0, le=0.5)] = Field(
        default=Fraction(0),
        description="Population-based training: the share of a stage's survivors, the poorest, "
        "replaced by copies of the best with other hyperparameters.",
    )
    seed_genomes: Annotated[tuple[SeedGenome, ...], Field(max_length=1_000)] = Field(
        default=(), description="Recipes of your own that open generation 0."
    )
    learn_from: Annotated[tuple[Name, ...], Field(max_length=100)] = Field(
        default=(),
        description="Earlier runs to learn from, finished or not: folders (from the working "
        "folder) or names under runs/. Their genes, priors and exploded rates are taken over, "
        "never their adapters; see docs/search.md.",
    )
    elite_fraction: Annotated[Exact, Field(ge=0, lt=1)] = Field(
        default=Fraction(0),
        description="The share of the population, rounded down, that is kept without retraining; "
        "later generations breed only the rest.",
    )
    selection: Literal["nsga2", "nsga3"] = Field(
        default="nsga2",
        description="What spreads a front: crowding, or reference points (NSGA-III, for three "
        "objectives and more).",
    )
    crossover_probability: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.9, description="The probability that two parents' genes are crossed."
    )
    mutation_probability: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.3,
        description="The probability, for each gene, that it mutates; a learning rate on a log "
        "scale changes in every child.",
    )

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


LARGEST_WEIGHT = 1e6


class Objective(Section):
    """One figure that the search optimises.

    `constraint: ">= 0.8"` here is short for an entry of `constraints`."""

    metric: MetricName = Field(
        description="A metric of docs/objectives.md, or your own `module:function`."
    )
    direction: Direction | None = Field(
        default=None, description="Which side is better. Needed for a metric of your own only."
    )
    weight: Annotated[float, Field(ge=0.0, le=LARGEST_WEIGHT)] | None = Field(
        default=None,
        description="What it counts in the report's weighted sum, which decides nothing. With one "
        "given, objectives without count 1.",
    )

    @model_validator(mode="before")
    @classmethod
    def _natural_direction(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("constraint") is not None:
            # `Config` has moved every constraint that can be read into `constraints`.
            bound = shown(data["constraint"])
            raise ValueError(f"`constraint` must be `op number`, such as '>= 0.8', found {bound}")
        if not isinstance(data, dict) or data.get("direction") is not None:
            return data
        try:
            natural = metric_entry(str(check_metric(data.get("metric")))).direction
        except (KeyError, ValueError):
            return data  # the check of `metric` reports what is wrong with the name
        return data if natural is None else {**data, "direction": natural}

    @model_validator(mode="after")
    def _has_a_direction(self) -> Objective:
        if self.direction is None:
            raise ValueError(
                f"{self.metric} is a function of yours: set `direction` to maximize or minimize"
            )
        return self


def full_weights(given: Mapping[str, float | None]) -> dict[str, float] | None:
    """The weight of each objective, by metric: 1 where it has none; None where no objective has."""
    if all(weight is None for weight in given.values()):
        return None
    return {metric: 1.0 if weight is None else weight for metric, weight in given.items()}
