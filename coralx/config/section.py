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
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from coralx.config.metric_catalogue import check_metric


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The section's JSON schema, with the bounds of exact numbers: pydantic leaves them under
        its own names, which no other program reads."""
        schema = handler(core_schema)
        for node in handler.resolve_ref_schema(schema).get("properties", {}).values():
            for name in _BOUNDS.keys() & node.keys():
                node[_BOUNDS[name]] = float(node.pop(name))
        return schema


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


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
