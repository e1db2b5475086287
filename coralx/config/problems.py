"""Pydantic's errors as one line each: key path, what is wrong, what was found, nearest key."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from coralx.text import LONGEST_VALUE, counted, did_you_mean, shortened, shown

_MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "missing",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "decimal_type": "expected a number",
    "decimal_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "tuple_type": "expected a list",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "dict_type": "expected keys and values",
    # The schema's one pattern is that of names.
    "string_pattern_mismatch": "expected a name of letters (a-z, A-Z), digits, dots, dashes and "
    "underscores that begins with a letter or a digit, 100 characters at most",
}

LISTED = 50
"""Problems of one config that are described; of more only the number is told."""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _known_keys(root: type[BaseModel], path: list[str | int]) -> set[str]:
    """Keys that may stand where `path` ends; none in a mapping, whose keys are the user's."""
    models, is_mapping = [root], False
    for name in path:
        if isinstance(name, int):
            continue
        if is_mapping:  # the name of one of its entries
            is_mapping = False
            continue
        annotations = [m.model_fields[name].annotation for m in models if name in m.model_fields]
        models = [model for annotation in annotations for model in _models_in(annotation)]
        is_mapping = any(map(_maps_to_a_section, annotations))
    return set() if is_mapping else {key for model in models for key in model.model_fields}


def _maps_to_a_section(annotation: Any) -> bool:
    if get_origin(annotation) is dict:
        return bool(_models_in(annotation))
    return any(_maps_to_a_section(part) for part in get_args(annotation))


def _real_path(root: type[BaseModel], error: ErrorDetails) -> list[int | str]:
    """Drop what pydantic adds to a location for the members of a union. An unknown key stands last,
    and may look like that, too."""
    location = error["loc"]
    path: list[int | str] = []
    for position, name in enumerate(location):
        last = position == len(location) - 1
        if (
            isinstance(name, int)
            or name in (known := _known_keys(root, path))
            or (not known and path[-1:] == ["tasks"])  # whose keys are names of the user's
            or (last and (error["type"] == "extra_forbidden" or not _looks_internal(name)))
        ):
            path.append(name)
    return path


def _looks_internal(name: str) -> bool:
    internal = ("choices", "range", "str", "int", "float", "decimal", "tuple")
    return name in internal or "[" in name or name.startswith("constrained-")


def _describe(error: ErrorDetails, root: type[BaseModel]) -> str:
    path = _real_path(root, error)
    kind, found = error["type"], error["input"]
    if kind == "value_error":
        message = str(error["ctx"]["error"])
    else:
        message = _MESSAGES.get(kind, error["msg"][0].lower() + error["msg"][1:])
        message = message.replace("tuple should", "list should").replace(" after validation", "")
    if kind == "extra_forbidden":
        known = _known_keys(root, path[:-1])
        near = did_you_mean(str(path[-1]), known)
        message += near or f"; known here: {', '.join(sorted(known))}"
    elif kind != "missing" and not isinstance(found, dict | list | BaseModel):
        message += f", found {shown(found)}"
        if kind == "string_type" and isinstance(found, int | float):
            message += " (put it in quotes)"
    where = ".".join(shortened(str(part), LONGEST_VALUE) for part in path) or "(top level)"
    return f"{where}: {message}"


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line a problem, duplicates (from the members of a union) removed, in file order."""
    details = error.errors(include_url=False)
    left_out = len(details) - LISTED
    details = details[:LISTED]
    locations = [item["loc"] for item in details]
    told = [(item["loc"], item["input"]) for item in details]

    def is_echo(item: ErrorDetails) -> bool:
        """A list found too short only because its items were refused, a default that could not be
        made because something else was, or what a task has from `data` itself."""
        place = item["loc"]
        if place[:2] == ("data", "tasks") and (("data", *place[3:]), item["input"]) in told:
            return True
        if item["type"] == "default_factory_not_called":
            return True
        return item["type"] == "too_short" and any(
            len(other) > len(place) and other[: len(place)] == place for other in locations
        )

    found = list(dict.fromkeys(_describe(item, root) for item in details if not is_echo(item)))
    return found if left_out <= 0 else [*found, f"and {counted(left_out, 'more problem')}"]
