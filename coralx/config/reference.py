"""Writes the reference in docs/config.md from the schema: `python -m coralx.config.reference`.

With a file's name it replaces what that file has below the marker; without, it prints the tables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coralx.config.schema import Config
from coralx.errors import UsageError

MARKER = "<!-- What follows is generated from the schema by `make docs`: edit the schema. -->\n"
HEADER = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
NAME_PATTERN = "^[A-Za-z0-9]"
"""How the pattern of names begins; the schema has no other pattern."""

BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "and below",
}
"""The limits of a number in a JSON schema, and in words."""

Schema = Mapping[str, Any]


def reference() -> str:
    """Every section of a config as Markdown, in the order of the schema."""
    schema = Config.model_json_schema()
    lists = {key: node for key, node in schema["properties"].items() if "type" in node}
    parts = [_table("Lists at the top level", "", lists, schema["$defs"])]
    for key, node in schema["properties"].items():
        parts += _sections(key, node, schema["$defs"])
    return "\n".join(parts)


def _sections(path: str, node: Schema, sections: Schema, outer: Schema | None = None) -> list[str]:
    """The section that a key holds, if it holds one, and the sections inside it."""
    suffix, section = _section_in(node, sections)
    if section is None:
        return []
    path, keys = path + suffix, section["properties"]
    shared = [key for key, inner in keys.items() if outer is not None and inner == outer.get(key)]
    own = {key: inner for key, inner in keys.items() if key not in shared}
    if not own:  # a task has the keys of `data`
        return []
    text = section["description"]
    if shared:
        text += f"\n\nAlso, as above: {', '.join(f'`{key}`' for key in shared)}."
    parts = [_table(f"`{path}`", text, own, sections, section.get("required", ()))]
    for key, inner in own.items():
        parts += _sections(f"{path}.{key}", inner, sections, keys)
    return parts + _forms(path, own.values(), sections)


def _forms(path: str, nodes: Iterable[Schema], sections: Schema) -> list[str]:
    """The sections that keys hold which have a choice of two: the forms of a gene. Those with the
    same keys, of whole numbers and of others, are shown once, as that of any number."""
    unions = [parts for node in nodes if len(parts := _alternatives(node)) > 1]
    names = sorted({part["$ref"] for parts in unions for part in parts if "$ref" in part})
    forms: dict[tuple[str, ...], Schema] = {}
    for name in names:  # FloatRange comes before IntRange
        section = _resolved({"$ref": name}, sections)
        forms.setdefault(tuple(section["properties"]), section)
    return [
        _table(
            f"`{path}.<gene>` as {_keys(section)}",
            section["description"],
            section["properties"],
            sections,
            section.get("required", ()),
        )
        for section in forms.values()
    ]


def _section_in(node: Schema, sections: Schema) -> tuple[str, Schema | None]:
    """The section that a key's value is, or is a list or mapping of, and the suffix of its path.
    None for genes, which have two forms, and for plain values."""
    parts = _alternatives(node)
    if len(parts) != 1:
        return "", None
    (part,) = parts
    if "$ref" in part:
        section = _resolved(part, sections)
        return "", None if set(section["properties"]) <= {"choices"} else section
    inner, suffix = (part["items"], "[]") if "items" in part else (_entry(part), ".<name>")
    return (suffix, _resolved(inner, sections)) if "$ref" in inner else ("", None)


def _table(
    title: str, text: str, keys: Schema, sections: Schema, required: Sequence[str] = ()
) -> str:
    """A heading, a sentence, and a row for each key that has a description."""
    rows = [
        f"| `{key}` | {_value(node, sections)} | {_default(key, node, required)} | "
        f"{node['description']} |\n"
        for key, node in keys.items()
        if "description" in node
    ]
    return "\n".join([f"## {title}\n", *([f"{text}\n"] if text else []), HEADER + "".join(rows)])


def _default(key: str, node: Schema, required: Sequence[str]) -> str:
    if key in required:
        return "needed"
    if "default" not in node:  # it depends on the rest of the config
        return "see right"
    default = node["default"]
    return "unset" if default is None else f"`{_written(default)}`"


def _written(value: Any) -> str:
    """A plain value in YAML, on one line."""
    if isinstance(value, dict):
        entries = [f"{key}: {_written(v)}" for key, v in value.items() if v is not None]
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str) and "\n" not in value:
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _value(node: Schema, sections: Schema, *, many: bool = False) -> str:
    """What a key may hold, in words; `many` such things where a list holds them."""
    parts = _alternatives(node)
    if sum("$ref" in part for part in parts) > 1:  # by their first keys they are told apart
        kinds = [_keys(_resolved(part, sections)) for part in parts]
    else:
        kinds = [_kind(part, sections, many) for part in parts]
    return ", or ".join(dict.fromkeys(kinds))


def _kind(part: Schema, sections: Schema, many: bool) -> str:
    if "$ref" in part:
        section = _resolved(part, sections)
        return _keys(section) if len(section["properties"]) < 4 else "keys and values (see below)"
    if "enum" in part or "const" in part:
        return ", ".join(f"`{choice}`" for choice in part.get("enum", [part.get("const")]))
    if part["type"] == "array":
        return f"{'lists' if many else 'a list'} of {_value(part['items'], sections, many=True)}"
    if part["type"] == "object":
        return f"a mapping from name to {_value(_entry(part), sections)}"
    if part["type"] == "boolean":
        return "`true`, `false`"
    if part["type"] == "string":
        is_name = part.get("pattern", "").startswith(NAME_PATTERN)
        return "a name" if is_name else "one character" if part.get("maxLength") == 1 else "text"
    kind = "whole number" if part["type"] == "integer" else "number"
    return (f"{kind}s" if many else f"a {kind}") + _bounds(part)


def _keys(section: Schema) -> str:
    """A section by the first of its keys."""
    first = list(section["properties"])[:3]
    more = ", ..." if len(section["properties"]) > 3 else ""
    return f"`{{{', '.join(first)}{more}}}`"


def _bounds(part: Schema) -> str:
    """The limits of a number, but for those that only bound what arithmetic can stand."""
    known = [(word, part[name]) for name, word in BOUNDS.items() if name in part]
    return "".join(f" {word} {_plain(number)}" for word, number in known if number < 10**9)


def _plain(number: float) -> str:
    return f"{number:,.6f}".rstrip("0").rstrip(".")


def _alternatives(node: Schema) -> list[Schema]:
    """The alternatives of a value, those of inner unions included; without null, which is "unset",
    and without numbers written as text."""
    parts = node.get("anyOf") or node.get("oneOf")
    if parts is None:
        return [node]
    bounds = {name: node[name] for name in BOUNDS if name in node}
    flat = [{**inner, **bounds} for part in parts for inner in _alternatives(part)]
    is_number = any(part.get("type") == "number" for part in flat)
    return [
        part
        for part in flat
        if part.get("type") != "null" and not (is_number and part.get("type") == "string")
    ]


def _entry(mapping: Schema) -> Schema:
    """The schema of the entries of a mapping; empty for what is no mapping."""
    of_names: Schema = mapping.get("patternProperties", {"": mapping.get("additionalProperties")})
    (entry,) = of_names.values()
    return entry or {}


def _resolved(node: Schema, sections: Schema) -> Schema:
    section: Schema = sections[node["$ref"].rpartition("/")[2]]
    return section


def rewritten(document: str) -> str:
    """A document with current tables below its marker. Raises UsageError where it has no marker."""
    head, marker, _ = document.partition(MARKER)
    if not marker:
        raise UsageError("the file has no marker line for the tables", MARKER.strip())
    return f"{head}{MARKER}\n{reference()}"


def main(arguments: Sequence[str]) -> None:
    """Print the reference, or write it into a file."""
    if not arguments:
        sys.stdout.write(reference())
        return
    path = Path(arguments[0])
    try:
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
    except (OSError, UsageError) as error:
        sys.exit(f"{path}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
