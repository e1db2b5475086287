"""What all sections of a config share: frozen, unknown keys refused; and their common types."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from coralx.config.metrics import check_metric


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


def _exact(value: Any) -> Any:
    """Floats become the decimal that was written, so that 0.1 is a tenth."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def _plain_number(value: Decimal) -> float | int:
    return int(value) if value == value.to_integral_value() else float(value)


Exact = Annotated[
    Decimal, BeforeValidator(_exact), PlainSerializer(_plain_number, return_type=float | int)
]
MetricName = Annotated[str, BeforeValidator(check_metric)]
Count = Annotated[int, Field(ge=1)]
