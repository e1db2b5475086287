"""How the search breeds and what it is to optimise."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from coralx.config.exact import Exact
from coralx.config.metrics import Direction, check_metric, described
from coralx.config.section import Count, MetricName, Section
from coralx.config.space import SeedGenome
from coralx.printable import shown

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class CheckpointCrossover(Section):
    """Probabilities that a child of two parents starts from both their checkpoints: `mask` takes
    each module from either parent, `merge` a weighted mean of the two updates. What is worse than
    the better parent's weights before any training is dropped for them. DoRA is masked only where
    child and parents all have it, and never merged: its magnitudes have no such mean."""

    mask: Probability = 0.0
    merge: Probability = 0.0

    @model_validator(mode="after")
    def _are_exclusive(self) -> CheckpointCrossover:
        if self.mask + self.merge > 1.0:
            raise ValueError(
                f"mask ({self.mask:g}) and merge ({self.merge:g}) exclude each other, so together "
                "they are at most 1"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether any child can be blended."""
        return self.mask + self.merge > 0.0


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

    population_size: Annotated[int, Field(ge=2, le=1_000)] = 8
    generations: Annotated[int, Field(ge=1, le=10_000)] = 2
    patience: Count | None = None
    inherit: Literal["off", "adapter", "adapter+optimizer"] = "adapter"
    resize_adapters: bool = False
    checkpoint_crossover: CheckpointCrossover = CheckpointCrossover()
    pbt_quantile: Annotated[Exact, Field(ge=0, le=0.5)] = Fraction(0)
    seed_genomes: Annotated[tuple[SeedGenome, ...], Field(max_length=1_000)] = ()
    elite_fraction: Annotated[Exact, Field(ge=0, lt=1)] = Fraction(0)
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


LARGEST_WEIGHT = 1e6


class Objective(Section):
    """What is optimised; `direction` defaults to the metric's natural one. `weight`: what it counts
    in the report's weighted sum, which decides nothing; there is one as soon as any objective has
    a weight, and in it those without count 1."""

    metric: MetricName
    direction: Direction | None = None
    weight: Annotated[float, Field(ge=0.0, le=LARGEST_WEIGHT)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _natural_direction(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("constraint") is not None:
            found = shown(data["constraint"])  # one that can be read is in `constraints` by now
            raise ValueError(f"`constraint` reads `op number`, such as '>= 0.8', found {found}")
        if not isinstance(data, dict) or data.get("direction") is not None:
            return data
        try:
            natural = described(str(check_metric(data.get("metric")))).direction
        except (KeyError, ValueError):
            return data  # what is wrong with the name is told where it is checked
        return data if natural is None else {**data, "direction": natural}

    @model_validator(mode="after")
    def _has_a_direction(self) -> Objective:
        if self.direction is None:
            raise ValueError(
                f"{self.metric} is a function of yours: say `direction: maximize` or `minimize`"
            )
        return self


def full_weights(given: Mapping[str, float | None]) -> dict[str, float] | None:
    """The weight of each objective, by metric: 1 where none is given; None if none is at all."""
    if all(weight is None for weight in given.values()):
        return None
    return {metric: 1.0 if weight is None else weight for metric, weight in given.items()}
