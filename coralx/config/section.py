"""The base class of all sections of a config, frozen and closed to unknown keys, and the types of
values that several sections use."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from coralx.config.metric_catalogue import check_metric


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_no_switch(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """Refuse `true` and `false` where a number is wanted: pydantic takes them for 1 and 0."""
        checked = handler(value)
        pairs = (
            zip(value, checked, strict=False) if isinstance(value, list) else ((value, checked),)
        )
        for given, taken in pairs:
            if isinstance(given, bool) and type(taken) in (int, float, Fraction):
                raise ValueError("expected a number")
        return checked

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The section's JSON schema. Pydantic writes the bounds of exact numbers under names of its
        own, which no other program reads: they get the standard's."""
        schema = handler(core_schema)
        for node in handler.resolve_ref_schema(schema).get("properties", {}).values():
            for name in _BOUNDS.keys() & node.keys():
                node[_BOUNDS[name]] = float(node.pop(name))
        return schema


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""Names of bounds: pydantic's, and those of JSON schema."""

MetricName = Annotated[str, BeforeValidator(check_metric)]
Count = Annotated[int, Field(ge=1, le=10**12)]
"""Of rows or steps. The bounds say not what is advisable, but what arithmetic and memory allow."""

Size = Annotated[int, Field(ge=1, le=1 << 16)]
"""Of a rank or a batch."""

_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")


def without_controls(text: str) -> str:
    """The text, unless it holds control characters. Raises ValueError."""
    control = _CONTROLS.search(text)
    if control:
        raise ValueError(f"the character {control[0]!r} is not allowed here")
    return text


Text = Annotated[str, Field(max_length=1 << 16)]
"""Any text. With a `max_length`, pydantic also refuses lone surrogates, which have no UTF-8."""

Name = Annotated[str, Field(max_length=1 << 12), AfterValidator(without_controls)]
"""Of a file, a column, a label or a module: without control characters."""
