"""The section `search_space`: which genes are searched, and their ranges and choices."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from coralx.config.gene_forms import (
    BoolChoices,
    FloatChoices,
    FloatGene,
    FloatRange,
    IntChoices,
    IntGene,
    LayerChoices,
    Layers,
    ModuleChoices,
    Modules,
)
from coralx.config.section import Section, Size

_LIMITS: dict[str, tuple[bool, float | None]] = {
    "alpha_ratio": (False, None),
    "dropout": (True, 1.0),
    "learning_rate": (False, None),
    "weight_decay": (True, None),
    "warmup_ratio": (True, 1.0),
}
"""By gene: whether 0 is allowed, and the value that it must stay below."""

SMALLEST, LARGEST = 1e-12, 1e6
"""Of any gene but 0: far outside of what trains, and safe in products and ratios of genes."""


class SearchSpace(Section):
    """Genes and where they may lie. The first five are always searched, the others on request."""

    rank: IntGene = Field(default=IntChoices(choices=(2, 4, 8, 16, 32)), description="LoRA's rank.")
    alpha_ratio: FloatGene = Field(
        default=FloatChoices(choices=(1.0, 2.0)), description="alpha = ratio x rank. Above 0."
    )
    dropout: FloatGene = Field(
        default=FloatRange(low=0.0, high=0.2), description="Of the adapter's input, below 1."
    )
    learning_rate: FloatGene = Field(
        default=FloatRange(low=5e-5, high=5e-3, log=True),
        description="The highest of the schedule. Left out, it has a prior by task, kind and width "
        "of the base, too.",
    )
    target_modules: ModuleChoices = Field(
        default=ModuleChoices(choices=("all-linear",)),
        description="Which linear modules to adapt: each choice a list of names, or `all-linear`.",
    )
    weight_decay: FloatGene | None = Field(
        default=None, description="Unset: `training.weight_decay` for all."
    )
    warmup_ratio: FloatGene | None = Field(
        default=None, description="Below 1. Unset: `training.warmup_ratio` for all."
    )
    batch_size: IntGene | None = Field(
        default=None, description="Unset: `training.batch_size` for all."
    )
    use_rslora: BoolChoices | None = Field(
        default=None, description="Scale by alpha over the root of the rank (rsLoRA). Unset: off."
    )
    use_dora: BoolChoices | None = Field(
        default=None, description="Train the weights' magnitudes as well (DoRA). Unset: off."
    )
    layers: LayerChoices | None = Field(
        default=None,
        description="Which layers to adapt: `all`, `top-half`, `top-quarter` (rounded up), or how "
        "many from the top. The frozen ones below cost little. Unset: all.",
    )

    @field_validator("alpha_ratio", "dropout", "learning_rate", "weight_decay", "warmup_ratio")
    @classmethod
    def _lies_where_it_makes_sense(
        cls, gene: FloatChoices | FloatRange | None, info: ValidationInfo
    ) -> FloatChoices | FloatRange | None:
        if gene is None:
            return None
        zero_allowed, ceiling = _LIMITS[str(info.field_name)]
        values = gene.choices if isinstance(gene, FloatChoices) else (gene.low, gene.high)
        low, high = min(values), max(values)
        if low < 0 or (low == 0 and not zero_allowed):
            raise ValueError(f"must be {'at least' if zero_allowed else 'above'} 0, found {low:g}")
        if ceiling is not None and high >= ceiling:
            raise ValueError(f"must be below {ceiling:g}, found {high:g}")
        if high > LARGEST:
            raise ValueError(f"must be at most {LARGEST:g}, found {high:g}")
        too_small = [value for value in values if 0 < value < SMALLEST]
        if too_small:
            raise ValueError(f"must be at least {SMALLEST:g}, found {too_small[0]:g}")
        return gene


class SeedGenome(Section):
    """A recipe of your own; what it leaves out is as in the common default."""

    rank: Size | None = Field(default=None, description="LoRA's rank. Unset: 16.")
    alpha: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None, description="In place of `alpha_ratio`: alpha itself."
    )
    alpha_ratio: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None, description="alpha = ratio x rank. Unset: 1."
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        default=None, description="Unset: 0."
    )
    learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None, description="Unset: 2e-4."
    )
    target_modules: Modules | None = Field(default=None, description="Unset: `all-linear`.")
    weight_decay: Annotated[float, Field(ge=0.0)] | None = Field(
        default=None, description="Unset: `training.weight_decay`."
    )
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        default=None, description="Unset: `training.warmup_ratio`."
    )
    batch_size: Size | None = Field(default=None, description="Unset: `training.batch_size`.")
    use_rslora: bool | None = Field(default=None, description="rsLoRA's scaling. Unset: off.")
    use_dora: bool | None = Field(default=None, description="DoRA. Unset: off.")
    layers: Layers | None = Field(
        default=None,
        description="`all`, `top-half`, `top-quarter`, or how many from the top. Unset: `all`.",
    )

    @model_validator(mode="after")
    def _has_one_alpha(self) -> SeedGenome:
        if self.alpha is not None and self.alpha_ratio is not None:
            raise ValueError("give `alpha` or `alpha_ratio`, not both")
        return self
