"""Configs that no one would write: every one loads, or is refused with a message, and soon.

Structures with hostile values by Hypothesis, and the shipped YAML files mutated. What loads goes on
through what `coralx validate` does, and must come back equal from its own YAML.
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coralx import cli
from coralx.cli import validate
from coralx.config import dump_yaml, load_config
from coralx.config.load import parse_config, parse_yaml
from coralx.config.metric_catalogue import CATALOGUE
from coralx.config.schema import Config
from coralx.config.yaml_io import RESOLVED_NODES
from coralx.errors import ConfigError, CoralXError, UsageError
from tests.support.paths import ROOT

SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
SECONDS = 2.0
FAST = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
QUICK, SLOW = 250, 10_000
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def survives(folder: Path, text: str | bytes, overrides: tuple[str, ...] = ()) -> bool:
    """Take a config through loading and `coralx validate`; whether it is sound.

    Fails where anything but a readable error comes of it, or where it takes too long: in seconds of
    this process, whatever else the machine does.
    """
    path = folder / "case.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    began = time.process_time()
    code, output, loaded = said(path, overrides)
    assert time.process_time() - began < SECONDS
    assert output.strip()
    assert not HARMFUL.search(output), repr(output)
    if isinstance(loaded, CoralXError):
        assert code == 2
        assert is_readable(loaded), repr(loaded.message)
        assert "error:" in output
        return False
    dumped = parse_yaml(dump_yaml(loaded), "dumped", most_nodes=RESOLVED_NODES)
    assert parse_config(dumped, "dumped") == loaded
    assert code in (0, 2)
    return code == 0


def said(path: Path, overrides: tuple[str, ...]) -> tuple[int, str, Config | CoralXError]:
    """What `coralx validate` ends with and shows, and what became of the config in it."""
    settings = [part for override in overrides for part in ("--set", override)]
    output, code = io.StringIO(), 0
    loaded: list[Config | CoralXError] = []

    def load(path: Path, overrides: list[str]) -> Config:
        try:
            loaded.append(load_config(path, overrides))
        except (ConfigError, UsageError) as error:
            loaded.append(error)
            raise
        return loaded[0]  # type: ignore[return-value]

    with (
        patch.object(sys, "argv", ["coralx", "validate", str(path), *settings]),
        patch.object(validate, "load_config", load),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            cli.main()
        except SystemExit as ending:
            code = int(ending.code or 0)
    return code, output.getvalue(), loaded[0]


def is_readable(error: CoralXError) -> bool:
    """Whether it says something, at a length that a person reads, and does nothing else."""
    problems = error.problems if isinstance(error, ConfigError) else (error.message,)
    return (
        bool(error.message.strip())
        and len(problems) <= 60
        and all(0 < len(problem) < 2_500 for problem in problems)
        and not HARMFUL.search(error.message + error.hint)
    )


# -- structures ----------------------------------------------------------------------------------

NUMBERS = (
    0, 1, 2, -1, 3, 8, 2**31, 2**63, 10**18, 10**60, 0.5, -0.0, 5e-324, 1e-9, 1e308, 0.1 + 0.2,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
WHOLE = tuple(number for number in NUMBERS if isinstance(number, int))
WORDS = (
    *CATALOGUE, "sft", "label-tokens", "maximize", "minimize", "off", "adapter", "nsga3",
    "by-stage", "published", "asynchronous", "unreachable", "constant", "fp32", "simulated",
    "unsloth", "4bit",
)  # fmt: skip
TEXTS = (
    "", " ", "..", "../../etc/passwd", "/etc/passwd", "a/b",
    "\x1b[31mred", "\x00", "a\nb", "\u202e",
    "[red]x[/]", "=cmd()", "<script>", "!!python/object:x", "*alias", "&anchor", "~",
    "null", "true",
    "1e400", "1e-400", "9" * 5_000, "x" * 100_000, "nan", "-inf", "{text}", "{text.__class__}",
    "auroc < 0.5", "auroc", "auroc > 1e999", "auroc > " + "9" * 400, "builtin:minilm", "builtin:x",
    "all-linear", "auto", "é", "\ud800", "🦈", "\ufeff", "²", "%s%n",
    "~nobody/x", "a" * 300 + "/b/c",
)  # fmt: skip
hostile_keys = st.sampled_from(TEXTS) | st.text(max_size=4)
hostile = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(sorted(CATALOGUE)),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
)
anything = st.recursive(
    hostile,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile_keys, inner, max_size=3),
    max_leaves=8,
)

DEFAULTS: dict[str, Any] = Config().model_dump(mode="json")
VALID: tuple[dict[str, Any], ...] = (
    {},
    *(yaml.safe_load(path.read_text(encoding="utf-8")) for path in SHIPPED),
)


def alike(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same kind, which get past the first check."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.sampled_from(WHOLE) | st.integers(1, 300)
    if isinstance(value, float):
        return st.sampled_from(NUMBERS) | st.floats(0, 2)
    if isinstance(value, str):
        return st.sampled_from(TEXTS) | st.sampled_from(WORDS) | st.text(max_size=8)
    if isinstance(value, list) and value:
        return st.lists(st.sampled_from(value) | alike(value[0]), max_size=4)
    return anything


@st.composite
def configs(draw: st.DrawFn) -> Any:
    """A shipped config or an empty one, and some keys of the schema with values of their kind, or
    of any."""
    values: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(VALID)))
    sections = st.lists(st.sampled_from(sorted(DEFAULTS)), min_size=1, max_size=3, unique=True)
    for section in draw(sections):
        default = copy.deepcopy(DEFAULTS[section])
        if isinstance(default, dict):
            default |= values.get(section) or {}
        values[section] = default
        holder, key = _somewhere(draw, values, section)
        change = draw(st.integers(0, 9))
        if change == 0 and isinstance(holder, dict):
            holder[draw(hostile_keys)] = draw(anything)
        elif change == 1 and isinstance(holder, list):
            holder *= draw(st.sampled_from([2, 101, 1_001]))
        else:
            holder[key] = draw(anything if change == 2 else alike(holder[key]))
    return values


def _somewhere(draw: st.DrawFn, values: Any, key: Any) -> tuple[Any, Any]:
    """A list or mapping of a config, and a place in it."""
    holder = values
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 6)):
        holder = holder[key]
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = draw(st.sampled_from(places))
    return holder, key


@st.composite
def settings_of_keys(draw: st.DrawFn) -> str:
    """What might follow `--set`."""
    section = draw(st.sampled_from(sorted(DEFAULTS)))
    inner = DEFAULTS[section]
    names = [section]
    while isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
        places = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = draw(st.sampled_from(places))
        names.append(str(place))
        inner = inner[place]
    if draw(st.integers(0, 3)) == 0:
        names.insert(draw(st.integers(0, len(names))), draw(hostile_keys))
    value = draw(st.sampled_from(SNIPPETS) | anything.map(written) | st.text(max_size=12))
    return ".".join(names) + draw(st.sampled_from(["=", "=", "=", "", "=="])) + value


def written(value: Any) -> str:
    """A value as YAML, with anchors and aliases where a part of it stands twice."""
    try:
        text: str = yaml.dump(value, Dumper=FAST)
    except UnicodeEncodeError:  # libyaml writes no halves of characters
        text = yaml.safe_dump(value)
    return text


# -- mutations -----------------------------------------------------------------------------------

SNIPPETS = (
    "!!python/object/apply:os.system [id]", "!!binary x", "!x y", "&a [*a]", "&a", "*a", "<<: *a",
    "<<: {a: 1}", "[" * 300, "{a: " * 300, "- " * 300, "? ", "9" * 6_000, "0x" + "f" * 6_000, "0x_",
    "1e999", ".nan", "-.inf", ".inf", "1:2:3", "1_000", "0b", "2001-01-01",
    "\x00", "\x1b[2J", "\x85",
    "\u2028", "\ufeff", "\t", "---", "...", "%YAML 9", "# x", "|", ">", "'", '"', '"\\ud800"',
    '"\\x1b]0;x\\x07"', "null", "~", "[]", "{}", ": ", ", ", "= ", "true",
    "x" * 5_000, "[" + "1," * 6_000,
    "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\n",
)  # fmt: skip


def mutated(text: str, rng: Random) -> bytes:
    """A shipped file with one to four things done to it."""
    data = text.encode()
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.choice((1, 1, 2, 5, 20, 200)))
        lines = data.split(b"\n")
        match rng.randrange(8):
            case 0:
                data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
            case 1:
                data = data[:place] + data[end:]
            case 2:
                data = data[:end] + data[place:end] * rng.choice((1, 1, 3, 500)) + data[end:]
            case 3:
                one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[one], lines[other] = lines[other], lines[one]
                data = b"\n".join(lines)
            case 4 | 5:
                snippet = rng.choice(SNIPPETS).encode("utf-8", "surrogatepass")
                data = data[:place] + snippet + data[place:]
            case 6:
                tokens = [found.span() for found in re.finditer(rb"[^\s:,\[\]{}]+", data)]
                if tokens:  # a whole value or key gives way
                    start, stop = rng.choice(tokens)
                    snippet = rng.choice((*SNIPPETS, *TEXTS[:40])).encode("utf-8", "surrogatepass")
                    data = data[:start] + snippet + data[stop:]
            case _:
                data = b"\n".join([*lines[:1], *lines[: rng.randrange(len(lines))] * 2, *lines])
        data = data[: 300 * 1024]
    return data


# -- the runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def quick(count: int) -> Callable[[Any], Any]:
    """Settings of the default suite: the same cases each time."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def slow(count: int) -> Callable[[Any], Any]:
    """Settings of the slow suite: other cases each time."""
    return settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


@quick(QUICK // 5 * 2)
@given(values=configs())
def test_hostile_structures_load_or_are_refused(folder: Path, values: Any) -> None:
    survives(folder, written(values))


@quick(QUICK // 5)
@given(override=settings_of_keys())
def test_hostile_overrides_load_or_are_refused(folder: Path, override: str) -> None:
    survives(folder, "experiment: {name: x}\n", (override,))


def test_mutated_configs_load_or_are_refused(folder: Path) -> None:
    mutate(folder, QUICK // 5 * 2, seed=0)


def mutate(folder: Path, count: int, seed: int) -> None:
    sound = 0
    for number in range(count):
        rng = Random(f"{seed}-{number}")
        shipped = rng.choice(SHIPPED)
        text = mutated(shipped.read_text(encoding="utf-8"), rng)
        try:
            sound += survives(folder, text)
        except BaseException as error:
            kept = folder / f"case-{seed}-{number}.yaml"
            kept.write_bytes(text)
            raise AssertionError(f"seed {seed}, case {number} ({kept})") from error
    assert 0 < sound < count  # neither all harmless nor all refused at once


@pytest.mark.slow
@slow(SLOW // 5 * 2)
@given(values=configs())
def test_many_hostile_structures_load_or_are_refused(folder: Path, values: Any) -> None:
    survives(folder, written(values))


@pytest.mark.slow
@slow(SLOW // 5)
@given(override=settings_of_keys())
def test_many_hostile_overrides_load_or_are_refused(folder: Path, override: str) -> None:
    survives(folder, "experiment: {name: x}\n", (override,))


@pytest.mark.slow
def test_many_mutated_configs_load_or_are_refused(folder: Path) -> None:
    mutate(folder, SLOW // 5 * 2, seed=Random().randrange(1 << 32))
