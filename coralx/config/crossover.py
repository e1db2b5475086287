"""How often a child starts from the checkpoints of both its parents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from coralx.config.section import Section

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
