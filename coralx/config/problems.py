"""Pydantic's errors as a line each: path of the key, what is wrong, the value, the nearest key."""

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
    "invalid_key": "keys must be text",
    "string_unicode": "has a character that cannot be encoded",
    # The schema's one pattern is that of names.
    "string_pattern_mismatch": "expected a name of letters (a-z, A-Z), digits, dots, dashes and "
    "underscores that begins with a letter or a digit, 100 characters at most",
}

LISTED = 50
"""Problems of one config that are described; of further ones only the number is given."""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a type consists of: itself, or the members of a union or container."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _known_keys(root: type[BaseModel], path: list[str | int]) -> set[str]:
    """Keys that may stand where `path` ends; none in a mapping, whose keys are the user's."""
    models, is_mapping = [root], False
    for name in path:
        if isinstance(name, int):  # a position in a list
            continue
        if is_mapping:  # the name of one of its entries, which the user chose
            is_mapping = False
            continue
        annotations = [m.model_fields[name].annotation for m in models if name in m.model_fields]
        models = [model for annotation in annotations for model in _models_in(annotation)]
        is_mapping = any(map(_maps_to_a_section, annotations))
    return set() if is_mapping else {key for model in models for key in model.model_fields}


def _maps_to_a_section(annotation: Any) -> bool:
    """Whether a type is a mapping of sections by name, as `data.tasks` is."""
    if get_origin(annotation) is dict:
        return bool(_models_in(annotation))
    return any(_maps_to_a_section(part) for part in get_args(annotation))


def _real_path(root: type[BaseModel], error: ErrorDetails) -> list[int | str]:
    """An error's location without the names that pydantic inserts for members of a union."""
    location = error["loc"]
    path: list[int | str] = []
    for position, name in enumerate(location):
        if isinstance(name, int):
            path.append(name)
            continue
        known = _known_keys(root, path)
        is_user_name = not known and path[-1:] == ["tasks"]
        # An unknown key stands last, and may be one of pydantic's own names.
        is_last = position == len(location) - 1
        is_unknown_key = is_last and error["type"] == "extra_forbidden"
        is_value = is_last and not _looks_internal(name)
        if name in known or is_user_name or is_unknown_key or is_value:
            path.append(name)
    return path


def _looks_internal(name: str) -> bool:
    """Whether pydantic names members of unions so: by tag, by type, or by a type's repr."""
    internal = ("str", "int", "float", "decimal", "bool", "tuple")
    return name in internal or "[" in name or name.startswith("constrained-")


def _in_our_words(message: str) -> str:
    """A message of pydantic's, such as `Input should be greater than 0`, as `must be greater than
    0`."""
    _, should, demand = message.replace(" after validation", "").partition(" should ")
    return f"must {demand}" if should else message[0].lower() + message[1:]


def _describe(error: ErrorDetails, path: list[int | str], root: type[BaseModel]) -> tuple[str, str]:
    """What is wrong at a path, and the value that was found there, both in words."""
    kind, value = error["type"], error["input"]
    if kind == "value_error":
        message = str(error["ctx"]["error"])
    else:
        message = _MESSAGES.get(kind) or _in_our_words(error["msg"])
    if kind == "extra_forbidden":
        known = _known_keys(root, path[:-1])
        near = did_you_mean(str(path[-1]), known)
        message += near or f"; known here: {', '.join(sorted(known))}"
    if kind in ("extra_forbidden", "missing") or isinstance(value, dict | list | BaseModel):
        return message, ""
    is_unquoted = kind == "string_type" and isinstance(value, int | float)
    return message, f", found {shown(value)}{' (put it in quotes)' if is_unquoted else ''}"


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line a problem, `path.of.key: what is wrong, found VALUE`, in file order."""
    details = error.errors(include_url=False)
    more = len(details) - LISTED
    details = details[:LISTED]
    # Several errors of one key are those of the members of a union: a value that is none of them
    # is one problem.
    messages: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    for item in details:
        if _is_echo(item, details):
            continue
        path = _real_path(root, item)
        where = ".".join(shortened(str(part), LONGEST_VALUE) for part in path) or "(top level)"
        message, value = _describe(item, path, root)
        if message not in messages.setdefault(where, []):
            messages[where].append(message)
        values[where] = max(values.get(where, ""), value, key=len)
    lines = [f"{where}: {', or '.join(messages[where])}{values[where]}" for where in messages]
    return lines if more <= 0 else [*lines, f"and {counted(more, 'more problem')}"]


def _is_echo(item: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Whether an error only follows from another one of `details`."""
    if item["type"] == "default_factory_not_called":  # the section that it depends on was refused
        return True
    path = item["loc"]
    if path[:2] == ("data", "tasks"):  # a task takes over what `data` says
        origin = ("data", *path[3:])
        if any(o["loc"] == origin and o["input"] == item["input"] for o in details):
            return True
    if item["type"] == "too_short":  # a list is, once its items have been refused
        return any(len(o["loc"]) > len(path) and o["loc"][: len(path)] == path for o in details)
    return False
