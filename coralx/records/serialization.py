"""Records to JSON-ready values and back."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """The adapter of a class. Building one takes milliseconds, so each is built once."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def to_json(record: Any) -> dict[str, Any]:
    """A record as JSON-ready values. Every figure must be finite or None."""
    data: dict[str, Any] = _adapter(type(record)).dump_python(record, mode="json")
    return data


def from_json(cls: type[T], data: Any) -> T:
    """Rebuild a record; raises pydantic.ValidationError where `data` does not fit `cls`."""
    record: T = _adapter(cls).validate_python(data)
    return record
