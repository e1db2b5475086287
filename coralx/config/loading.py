"""From YAML text to a checked `Config`, with every problem reported at once.

PyYAML reads YAML 1.1; two of its habits are mended here: `1e-4` is a number, and only `true` and
`false` are booleans (`labels: [no, yes]` stays text). Duplicate keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from coralx.config.problems import problems_of
from coralx.config.schema import Config
from coralx.errors import ConfigError, UsageError

_STRING_TAG = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans, refusing duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes by the same numbers and booleans."""


def _install_resolvers(cls: type[_Loader | _Dumper]) -> None:
    replaced = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}
    cls.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in replaced]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    cls.add_implicit_resolver(
        "tag:yaml.org,2002:bool",
        re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
        list("tTfF"),
    )
    cls.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
            r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    )


_install_resolvers(_Loader)
_install_resolvers(_Dumper)


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


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == name:
                found: yaml.Node = value
                return found
    return None


def _parse(text: str, source: str, *, labels_at: Sequence[str] | None) -> Any:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if labels_at is not None:
            node: yaml.Node | None = root
            for name in labels_at:
                node = _child(node, name)
            if node is not None and not (
                isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~")
            ):
                _keep_text(node)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(source, [f"{where}{error.problem or error.context}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(source, [f"not readable as YAML: {error}"]) from None
    finally:
        loader.dispose()


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """YAML text as a mapping. Raises ConfigError naming `source` and the line."""
    data = _parse(text, source, labels_at=("data", "labels"))
    if data is None:
        raise ConfigError(source, ["the file is empty"], "`configs/quickstart.yaml` is an example.")
    if not isinstance(data, dict):
        found = {list: "a list"}.get(type(data), f"{data!r}")
        raise ConfigError(
            source, [f"expected sections such as `data:` and `model:`, found {found}"]
        )
    return data


def apply_override(data: dict[str, Any], assignment: str) -> None:
    """Set `dotted.key=value` in `data`, the value read as YAML. Raises UsageError."""
    path, separator, text = assignment.partition("=")
    names = path.strip().split(".")
    if not separator or not all(names):
        raise UsageError(
            f"--set {assignment!r} is not of the form dotted.key=value",
            "For example: --set evolution.population_size=4",
        )
    labels_at = () if names[:2] == ["data", "labels"] else None
    value = _parse(text, f"--set {path}", labels_at=labels_at)
    target: Any = data
    for position, name in enumerate(names):
        last = position == len(names) - 1
        if isinstance(target, list):
            if not name.isdigit() or int(name) >= len(target):
                raise UsageError(
                    f"--set {path}: {'.'.join(names[:position])} is a list of {len(target)}, "
                    f"{name!r} is not one of its positions (from 0)"
                )
            key: Any = int(name)
        elif isinstance(target, dict):
            key = name
            if not last and target.get(key) is None:
                into_list = names[position + 1].isdigit()
                target[key] = _default_at(names[: position + 1]) if into_list else {}
        else:
            raise UsageError(f"--set {path}: {'.'.join(names[:position])} holds a value, not keys")
        if last:
            target[key] = value
        else:
            target = target[key]


def _default_at(names: Sequence[str]) -> Any:
    """What the schema has at a dotted path, for an override that reaches into an omitted list."""
    value: Any = Config().model_dump(mode="json")
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, list) else {}


def parse_config(data: dict[str, Any], source: str) -> Config:
    """Check `data` against the schema. Raises ConfigError with every problem."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, problems_of(error, Config)) from None


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `dotted.key=value` overrides, check. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file"]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), ["is a folder; a YAML file is needed"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}"]) from None
    data = parse_yaml(text, str(path))
    for assignment in overrides:
        apply_override(data, assignment)
    return anchor_paths(parse_config(data, str(path)), path.parent)


def overridden(config: Config, overrides: Sequence[str]) -> Config:
    """A resolved config with `dotted.key=value` overrides. Raises as `load_config` does."""
    data = config.model_dump(mode="json")
    for assignment in overrides:
        apply_override(data, assignment)
    return anchor_paths(parse_config(data, "config"), Path.cwd())


def anchor_paths(config: Config, folder: Path) -> Config:
    """Make local paths absolute: as seen from the working folder, else from the config's folder."""

    def anchored(name: str | None) -> str | None:
        if name is None or name.startswith("builtin:"):
            return name
        try:
            candidates = [base / Path(name).expanduser() for base in (Path.cwd(), folder)]
            return next((str(path.resolve()) for path in candidates if path.exists()), name)
        except (OSError, RuntimeError, ValueError):  # too long, or of no known user
            return name

    model = config.model.model_copy(update={"base": anchored(config.model.base)})
    data = config.data.model_copy(
        update={
            split: anchored(getattr(config.data, split))
            for split in ("train", "validation", "test")
        }
    )
    return config.model_copy(update={"model": model, "data": data})


def dump_yaml(config: Config) -> str:
    """The config as YAML with every default written out."""
    values = config.model_dump(mode="json")
    dumped: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return dumped
