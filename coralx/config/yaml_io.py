"""YAML text to plain values and back. The text may come from anybody.

PyYAML reads YAML 1.1. Two rules of YAML 1.2 are added: `1e-4` is a number, and only `true` and
`false` are booleans (`labels: [no, yes]` stays text). Duplicate keys are refused, and so is all
that could make reading slow or mean more than it seems: tags, very large or deep text, very many
entries (counting those that aliases repeat), and numbers of very many digits.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from coralx.errors import ConfigError
from coralx.text import shown

MOST_BYTES, MOST_NODES = 128 * 1024, 10_000
"""Of a config. The shipped ones have 4 KB and 250 nodes; one of this size is read in half a
second."""

RESOLVED_BYTES, RESOLVED_NODES = 8 * MOST_BYTES, 4 * MOST_NODES
"""Of a run's own config, which has every default written out, one entry a line."""

DEEPEST = 32
"""Levels of a config. A config needs 6; Python's own stack ends at some hundreds."""

LONGEST_NUMBER = 64
"""Characters of a number. Python takes quadratic time over the digits of an integer."""

ANY = "*"
"""Any key, in a path of keys."""

_YAML = "tag:yaml.org,2002:"
_STRING_TAG = f"{_YAML}str"


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans, refusing what a config has no need of."""

    def __init__(self, text: str, most_nodes: int) -> None:
        super().__init__(text)
        self._most_nodes = most_nodes
        self._nodes = self._level = self._deepest = 0
        self._extents: dict[int, tuple[int, int]] = {}
        """Nodes and levels of every node that is complete, by its identity."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _error(
                f"tags are not allowed in a config, found {shown(event.tag)}", event.start_mark
            )
        # Nodes are counted while they are read, so that a text of too many is refused before it
        # fills memory; an alias counts as all that it repeats.
        before, outer = self._nodes, self._deepest
        self._level += 1
        self._deepest = self._level
        self._require_small(event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._extents:  # not complete yet, so the alias is inside of it
                problem = f"the alias *{event.anchor} stands inside of what it refers to"
                raise _error(problem, event.start_mark)
            nodes, levels = self._extents[id(node)]
            self._nodes += nodes
            self._deepest = self._level + levels - 1
        else:
            self._nodes += 1
            extent = (self._nodes - before, self._deepest - self._level + 1)
            self._extents[id(node)] = extent
        self._require_small(event.start_mark)
        self._level -= 1
        self._deepest = max(outer, self._deepest)
        return node

    def _require_small(self, mark: yaml.Mark) -> None:
        if self._deepest > DEEPEST:
            raise _error(f"nested more than {DEEPEST} levels deep", mark)
        if self._nodes > self._most_nodes:
            many = f"more than {self._most_nodes:,} keys and values"
            raise _error(f"{many} (aliases count as all that they repeat)", mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _error(f"the key {shown(key.value)} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """A number as SafeLoader reads it, if it is short enough."""
        if len(node.value) > LONGEST_NUMBER:
            raise _error(
                f"a number of {len(node.value):,} characters; at most {LONGEST_NUMBER} are allowed",
                node.start_mark,
            )
        is_whole = node.tag.endswith(":int")
        try:
            number: int | float = (
                self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)
            )
        except ValueError:
            raise _error(f"{shown(node.value)} is not a number", node.start_mark) from None
        return number


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes by the same numbers and booleans."""


def _install_resolvers(cls: type[_Loader | _Dumper]) -> None:
    """Have plain scalars read as booleans and numbers by the patterns of YAML 1.2, and not as dates
    at all."""
    replaced = {f"{_YAML}{kind}" for kind in ("bool", "float", "timestamp", "value")}
    kept = {}
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept[first] = [(tag, pattern) for tag, pattern in resolvers if tag not in replaced]
    cls.yaml_implicit_resolvers = kept
    cls.add_implicit_resolver(
        f"{_YAML}bool",
        re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
        list("tTfF"),
    )
    cls.add_implicit_resolver(
        f"{_YAML}float",
        re.compile(
            r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
            r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    )


_install_resolvers(_Loader)
_install_resolvers(_Dumper)
for _kind in ("int", "float"):
    _Loader.add_constructor(f"{_YAML}{_kind}", _Loader.construct_number)


def _keep_text(node: yaml.Node) -> None:
    """Make every scalar below `node` the text that was written."""
    if isinstance(node, yaml.ScalarNode):
        node.tag = _STRING_TAG
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keep_text(item)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _keep_text(key)
            _keep_text(value)


def _below(node: yaml.Node, path: Sequence[str]) -> list[yaml.Node]:
    """The nodes at a path of keys, in which `*` is any key."""
    if not path:
        return [node]
    if not isinstance(node, yaml.MappingNode):
        return []
    return [inner for key, value in node.value for inner in _inside(key, value, path)]


def _inside(key: yaml.Node, value: yaml.Node, path: Sequence[str]) -> list[yaml.Node]:
    """The nodes at a path within one entry of a mapping; `<<` merges the entries of others."""
    if key.tag == f"{_YAML}merge":
        merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
        return [inner for mapping in merged for inner in _below(mapping, path)]
    if path[0] == ANY or (isinstance(key, yaml.ScalarNode) and key.value == path[0]):
        return _below(value, path[1:])
    return []


def read_values(
    text: str, source: str, *, text_at: Sequence[Sequence[str]], most_nodes: int = MOST_NODES
) -> Any:
    """The value of a YAML text; scalars below the paths `text_at` stay text. Raises ConfigError
    naming `source`, line and column."""
    try:
        loader = _Loader(text, most_nodes)
        root = loader.get_single_node()
        if root is None:
            return None
        for node in (inner for path in text_at for inner in _below(root, path)):
            is_null = isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~")
            if not is_null:  # `labels: null` is the default, not a label
                _keep_text(node)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(source, [f"{where}{error.problem or error.context}"]) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        raise ConfigError(
            source,
            [
                f"line {line}, column {column}: the character {chr(error.character)!r} is not "
                "allowed"
            ],
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(source, [f"not readable as YAML: {error}"]) from None


def read_file(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text of a config file. At most `most_bytes` and one are read, however large it is. Raises
    ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file"]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), ["expected a YAML file, found a folder"]) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}"]) from None
    if len(content) > most_bytes:
        raise ConfigError(
            str(path), [f"larger than {most_bytes // 1024} KB, the most that a config may have"]
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = f"byte {content[error.start]:#04x} at position {error.start}"
        raise ConfigError(str(path), [f"not UTF-8 text: {wrong}"]) from None


def write_values(values: Any) -> str:
    """YAML text of plain values, in their order."""
    dumped: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return dumped
