"""From YAML text to a checked `Config`, with every problem reported at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from coralx.config.data import TaskData
from coralx.config.problems import problems_of
from coralx.config.schema import Config
from coralx.config.yaml_io import (
    ANY,
    DEEPEST,
    MOST_BYTES,
    MOST_NODES,
    RESOLVED_BYTES,
    RESOLVED_NODES,
    read_file,
    read_values,
    write_values,
)
from coralx.errors import ConfigError, UsageError
from coralx.text import LONGEST_VALUE, shortened, shown

LABELS = (("data", "labels"), ("data", "tasks", ANY, "labels"))
"""Keys whose values stay the text that was written: `no` is a label, not a boolean."""

AnySource = TypeVar("AnySource", bound=TaskData)


def parse_yaml(text: str, source: str, *, most_nodes: int = MOST_NODES) -> dict[str, Any]:
    """YAML text as a mapping. Raises ConfigError naming `source` and the line."""
    data = read_values(text, source, text_at=LABELS, most_nodes=most_nodes)
    if data is None:
        raise ConfigError(source, ["the file is empty"], "`configs/quickstart.yaml` is an example.")
    if not isinstance(data, dict):
        value = "a list" if isinstance(data, list) else shown(data)
        raise ConfigError(
            source, [f"expected sections such as `data:` and `model:`, found {value}"]
        )
    return data


def apply_override(data: dict[str, Any], assignment: str) -> None:
    """Set `dotted.key=value` in `data`, the value read as YAML. Raises UsageError."""
    path, separator, text = assignment.partition("=")
    names = path.strip().split(".")
    if not separator or not all(names) or len(names) > DEEPEST:
        raise UsageError(
            f"--set {shown(assignment)} is not of the form dotted.key=value",
            "For example: --set evolution.population_size=4",
        )
    path = shortened(path, LONGEST_VALUE)
    value = read_values(text, f"--set {path}", text_at=_labels_below(names))
    target: Any = data
    for position, name in enumerate(names):
        last = position == len(names) - 1
        if isinstance(target, list):
            if not _is_position(name) or int(name) >= len(target):
                raise UsageError(
                    f"--set {path}: {'.'.join(names[:position])} is a list of {len(target)}, and "
                    f"{shown(name)} is not one of its positions (from 0)"
                )
            key: Any = int(name)
        elif isinstance(target, dict):
            key = name
            if not last and target.get(key) is None:
                # One entry of a list that the file leaves out: the rest of it is the default's.
                into_list = _is_position(names[position + 1])
                target[key] = _default_at(names[: position + 1]) if into_list else {}
        else:
            raise UsageError(f"--set {path}: {'.'.join(names[:position])} holds a value, not keys")
        if last:
            target[key] = value
        else:
            target = target[key]


def _labels_below(names: Sequence[str]) -> list[Sequence[str]]:
    """The paths of labels within the value of an override at this path."""
    paths = list[Sequence[str]]()
    for path in LABELS:
        pairs = zip(path, names, strict=False)
        if all(key in (ANY, name) for key, name in pairs):
            paths.append(path[len(names) :])
    return paths


def _is_position(name: str) -> bool:
    """Whether a name can be a position in a list. `isdigit` alone takes ² for a digit."""
    return name.isascii() and name.isdigit() and len(name) < 10


def _default_at(names: Sequence[str]) -> Any:
    """The schema's default for a list at a dotted path; an empty mapping where it has none."""
    value: Any = Config().model_dump(mode="json")
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, list) else {}


def parse_config(data: dict[str, Any], source: str, folder: Path | None = None) -> Config:
    """Check `data`, of a file in `folder`, against the schema. Raises ConfigError with every
    problem."""
    context = None if folder is None else {"folder": folder}
    try:
        return Config.model_validate(data, context=context)
    except ValidationError as error:
        raise ConfigError(source, problems_of(error, Config)) from None


def load_config(path: Path, overrides: Sequence[str] = (), *, resolved: bool = False) -> Config:
    """Read a YAML file, apply `dotted.key=value` overrides, check. Raises ConfigError.

    A `resolved` config, as `dump_yaml` writes it, may be larger than a user's.
    """
    text = read_file(path, RESOLVED_BYTES if resolved else MOST_BYTES)
    most_nodes = RESOLVED_NODES if resolved else MOST_NODES
    data = parse_yaml(text, str(path), most_nodes=most_nodes)
    for assignment in overrides:
        apply_override(data, assignment)
    config = anchor_paths(parse_config(data, str(path), path.parent), path.parent)
    return without_functions(config) if resolved else config


def without_functions(config: Config) -> Config:
    """The config without a folder to import the user's functions from: it comes from a run folder,
    which may be somebody else's, and not from the file that the user named."""
    runtime = config.runtime.model_copy(update={"functions_from": None})
    return config.model_copy(update={"runtime": runtime})


def overridden(config: Config, overrides: Sequence[str]) -> Config:
    """A resolved config with `dotted.key=value` overrides. Raises as `load_config` does."""
    data = config.model_dump(mode="json")
    for assignment in overrides:
        apply_override(data, assignment)
    return without_functions(anchor_paths(parse_config(data, "config"), Path.cwd()))


def anchor_paths(config: Config, folder: Path) -> Config:
    """Make local paths absolute: from the working folder where they exist there, else from the
    config's folder, in which the user's functions are, too."""

    def anchored(name: str | None) -> str | None:
        if name is None or name.startswith("builtin:"):
            return name
        try:
            candidates = [base / Path(name).expanduser() for base in (Path.cwd(), folder)]
            return next((str(path.resolve()) for path in candidates if path.exists()), name)
        except (OSError, RuntimeError, ValueError):  # too long, or ~ of an unknown user
            return name

    model = config.model.model_copy(update={"base": anchored(config.model.base)})
    data = _anchored_source(config.data, anchored)
    if data.tasks is not None:
        tasks = {name: _anchored_source(task, anchored) for name, task in data.tasks.items()}
        data = data.model_copy(update={"tasks": tasks})
    functions = anchored(config.runtime.functions_from) or str(folder.resolve())
    update = {"functions_from": functions if config.functions else None}
    runtime = config.runtime.model_copy(update=update)
    return config.model_copy(update={"model": model, "data": data, "runtime": runtime})


def _anchored_source(source: AnySource, anchored: Callable[[str | None], str | None]) -> AnySource:
    """A source whose files are looked up by `anchored`."""
    update: dict[str, Any] = {
        split: anchored(getattr(source, split)) for split in ("train", "validation", "test")
    }
    for key in ("attacks", "clean_holdout"):
        table = getattr(source, key)
        if table is not None:
            update[key] = table.model_copy(update={"file": anchored(table.file)})
    return source.model_copy(update=update)


def dump_yaml(config: Config) -> str:
    """The config as YAML with every default written out."""
    return write_values(config.model_dump(mode="json"))
