"""What all sections of a config share: frozen, unknown keys refused; and their common types."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from coralx.config.metrics import check_metric


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


MetricName = Annotated[str, BeforeValidator(check_metric)]
Count = Annotated[int, Field(ge=1, le=10**12)]
"""Of rows or steps. Bounds here are not what is advisable, but what arithmetic and memory stand."""

Size = Annotated[int, Field(ge=1, le=1 << 16)]
"""Of a rank or a batch."""

_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")


def _without_controls(text: str) -> str:
    found = _CONTROLS.search(text)
    if found:
        raise ValueError(f"the character {found[0]!r} is not allowed here")
    return text


Text = Annotated[str, Field(max_length=1 << 16)]
"""Whatever can be written. Where there is a limit, pydantic also refuses halves of characters."""

Name = Annotated[str, Field(max_length=1 << 12), AfterValidator(_without_controls)]
"""Of a file, a column, a label or a module: nothing that a terminal would obey."""
