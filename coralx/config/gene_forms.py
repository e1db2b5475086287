"""The forms of a gene in the section `search_space`: a range or choices, perhaps with a prior."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from coralx.config.section import Name, Section, Size, without_controls
from coralx.text import LONGEST_VALUE, shortened

Several = Field(min_length=1, max_length=1_000)
"""How many choices there may be."""

MOST_LAYERS = 10_000
"""More than any base has."""


Spread = Annotated[float, Field(gt=0.0, le=1e6)]
Source = Annotated[str, Field(max_length=1_000), AfterValidator(without_controls)]

PRIOR = "Where good values are expected. Unset: all are equally likely."
OF_RANGE = (
    "How far around `prior`: the standard deviation in decades where `log` is set, else in the "
    "gene's own unit. Unset: 0.8 decades, or a quarter of the range."
)
OF_CHOICES = (
    "How far around `prior`: the standard deviation in steps along the sorted choices. Unset: 1."
)
WHERE_FROM = "Where `prior` comes from, in words, for reports."


def _spread_in_range(spread: float | None, info: ValidationInfo) -> float | None:
    """The spread, and of a prior that is given without one, the usual."""
    data = info.data
    if spread is not None or data.get("prior") is None or not {"low", "high", "log"} <= data.keys():
        return spread  # a key that was refused is missing
    return 0.8 if data["log"] else (data["high"] - data["low"]) / 4


def _spread_of_choices(spread: float | None, info: ValidationInfo) -> float | None:
    return 1.0 if spread is None and info.data.get("prior") is not None else spread


def _check_range(gene: FloatRange | IntRange) -> None:
    """Raise ValueError unless it is a range that holds its prior."""
    if not gene.low < gene.high:
        raise ValueError(f"`low` ({gene.low:g}) must be below `high` ({gene.high:g})")
    if gene.log and gene.low <= 0:
        raise ValueError(f"a log range needs `low` above 0, found {gene.low:g}")
    _check_prior(gene)
    if gene.prior is not None and not gene.low <= gene.prior <= gene.high:
        raise ValueError(
            f"`prior` ({gene.prior:g}) lies outside the range, {gene.low:g} to {gene.high:g}"
        )


def _check_choices(gene: FloatChoices | IntChoices) -> None:
    """Raise ValueError unless the prior is one of the choices."""
    _check_prior(gene)
    if gene.prior is not None and gene.prior not in gene.choices:
        listed = ", ".join(f"{value:g}" for value in gene.choices)
        raise ValueError(
            f"`prior` ({gene.prior:g}) is none of the choices: {shortened(listed, LONGEST_VALUE)}"
        )


def _check_prior(gene: FloatRange | IntRange | FloatChoices | IntChoices) -> None:
    for key in ("spread", "source"):
        if gene.prior is None and getattr(gene, key) is not None:
            raise ValueError(f"`{key}` says something of a prior: give `prior`, or leave it out")


class FloatRange(Section):
    """A number in [low, high]."""

    low: float = Field(description="The least value.")
    high: float = Field(description="The greatest value.")
    log: bool = Field(default=False, description="Draw on a log scale.")
    prior: float | None = Field(default=None, description=PRIOR)
    spread: Annotated[Spread | None, AfterValidator(_spread_in_range)] = Field(
        default=None, description=OF_RANGE
    )
    source: Source | None = Field(default=None, description=WHERE_FROM)

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        _check_range(self)
        return self


class IntRange(Section):
    """A whole number in [low, high]."""

    low: Size = Field(description="The least value.")
    high: Size = Field(description="The greatest value.")
    log: bool = Field(default=False, description="Draw on a log scale.")
    prior: Size | None = Field(default=None, description=PRIOR)
    spread: Annotated[Spread | None, AfterValidator(_spread_in_range)] = Field(
        default=None, description=OF_RANGE
    )
    source: Source | None = Field(default=None, description=WHERE_FROM)

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        _check_range(self)
        return self


class IntChoices(Section):
    """Whole numbers to choose from; neighbours in size count as similar."""

    choices: Annotated[tuple[Size, ...], Several] = Field(description="What may be drawn.")
    prior: Size | None = Field(default=None, description=PRIOR)
    spread: Annotated[Spread | None, AfterValidator(_spread_of_choices)] = Field(
        default=None, description=OF_CHOICES
    )
    source: Source | None = Field(default=None, description=WHERE_FROM)

    @model_validator(mode="after")
    def _holds_its_prior(self) -> IntChoices:
        _check_choices(self)
        return self


class FloatChoices(Section):
    """Numbers to choose from; neighbours in size count as similar."""

    choices: Annotated[tuple[float, ...], Several] = Field(description="What may be drawn.")
    prior: float | None = Field(default=None, description=PRIOR)
    spread: Annotated[Spread | None, AfterValidator(_spread_of_choices)] = Field(
        default=None, description=OF_CHOICES
    )
    source: Source | None = Field(default=None, description=WHERE_FROM)

    @model_validator(mode="after")
    def _holds_its_prior(self) -> FloatChoices:
        _check_choices(self)
        return self


class BoolChoices(Section):
    """A switch."""

    choices: Annotated[tuple[bool, ...], Several] = Field(description="What may be drawn.")


Modules = (
    Literal["all-linear"]
    | Annotated[
        tuple[Name, ...],
        Several,
        AfterValidator(lambda names: tuple(sorted(set(names)))),  # a set, whatever the order
    ]
)


class ModuleChoices(Section):
    """Sets of linear modules to adapt: lists of names, or `all-linear`."""

    choices: Annotated[tuple[Modules, ...], Several] = Field(description="What may be drawn.")


def _known_layers(value: Any) -> Any:
    """The value, if it says which layers are adapted. Raises ValueError."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value in ("all", "top-half", "top-quarter") or (is_number and 1 <= value <= MOST_LAYERS):
        return value
    raise ValueError(
        "expected all, top-half, top-quarter, or how many layers from the top: a whole number from "
        f"1 to {MOST_LAYERS:,}"
    )


Layers = Annotated[
    Literal["all", "top-half", "top-quarter"] | Annotated[int, Field(ge=1, le=MOST_LAYERS)],
    BeforeValidator(_known_layers),
]


class LayerChoices(Section):
    """Which layers to adapt: `all`, `top-half`, `top-quarter`, or how many from the top."""

    choices: Annotated[tuple[Layers, ...], Several] = Field(description="What may be drawn.")


OF_SEVERAL, RANGE = "[choices]", "[range]"
"""The forms' names in the locations of errors; in brackets, as no key is."""


def _kind(value: Any) -> str:
    """Which form a gene has: only a list of choices has the key `choices`."""
    has_choices = "choices" in value if isinstance(value, dict) else hasattr(value, "choices")
    return OF_SEVERAL if has_choices else RANGE


IntGene = Annotated[
    Annotated[IntChoices, Tag(OF_SEVERAL)] | Annotated[IntRange, Tag(RANGE)],
    Discriminator(_kind),
]
FloatGene = Annotated[
    Annotated[FloatChoices, Tag(OF_SEVERAL)] | Annotated[FloatRange, Tag(RANGE)],
    Discriminator(_kind),
]
