"""What several commands use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from coralx.api.runs import Outcome
from coralx.backends.protocol import REGISTRY
from coralx.config import Config
from coralx.config.load import parse_yaml
from coralx.config.warnings import measurement_warnings, remote_code_warnings
from coralx.config.yaml_io import read_file
from coralx.errors import ConfigError, NoResultError, UsageError
from coralx.report.terminal import print_report
from coralx.report.vllm import serving_line
from coralx.text import printable


def known_backend(name: str | None) -> str | None:
    """Pass a backend's name through; raises UsageError for an unknown one."""
    known = ("auto", *REGISTRY)
    if name is not None and name not in known:
        raise UsageError(f"unknown backend {name!r}", f"Use one of: {', '.join(known)}.")
    return name


def name_setting(name: str) -> str:
    """The override that names a run: text, whatever it looks like as YAML."""
    return f"experiment.name={json.dumps(printable(name), ensure_ascii=False)}"


def list_setting(key: str, texts: Sequence[str]) -> str:
    """The override that sets a key to a list of texts, whatever they look like as YAML."""
    return f"{key}={json.dumps([printable(text) for text in texts], ensure_ascii=False)}"


def with_settings(path: Path | None, overrides: Sequence[str] | None) -> list[str]:
    """The overrides, after those that a file of settings stands for: one for each key of a section.
    Raises ConfigError where it cannot be read."""
    if path is None:
        return list(overrides or ())
    sections = parse_yaml(read_file(path), str(path))
    return [*_assignments(sections), *(overrides or ())]


def _assignments(sections: Mapping[Any, Any]) -> Iterator[str]:
    for section, value in sections.items():
        named = value if isinstance(value, dict) else {"": value}
        for key, setting in named.items():
            path = f"{section}.{key}" if key != "" else section
            yield f"{path}={json.dumps(setting, ensure_ascii=False)}"


def warn_of_plan(config: Config, console: Console, *, quiet: bool) -> None:
    """Warn before training what speaks against the plan; if `quiet`, only of what is dangerous. The
    schedule is left to the opening lines: only they know which stages are too short to cut."""
    warn([*remote_code_warnings(config), *(() if quiet else measurement_warnings(config))], console)


def warn(warnings: Iterable[str], console: Console) -> None:
    """Print each on a line, on a terminal without breaking words."""
    for warning in warnings:
        line = f"[yellow]warning:[/] {escape(warning)}"
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Name the config's file in config errors: the worker that raises them does not know it."""
    try:
        yield
    except ConfigError as error:
        raise (error.located(str(path)) if error.source == "config" else error) from None


def print_outcome(
    outcome: Outcome, console: Console, *, command: str | None = None, prefix: str = ""
) -> None:
    """The report, the run folder, and after an end by the budget how to go on: by `command` (None:
    by a resume) under a higher limit. Raises NoResultError, its message beginning with `prefix`,
    where the run is over, however it ended, and there is no front."""
    print_report(outcome.report, console)
    report = outcome.report
    where = f"\nRun: {outcome.layout.root}"
    if any(member["adapter"] for member in report["front"]):
        where += f"\nAdapters: {outcome.layout.best}/<genome>"
    if (serving := serving_line(report)) is not None:
        where += f"\n{serving}"
    console.print(where, soft_wrap=True, highlight=False, markup=False)
    if report["not_measured"]:
        console.print(
            "Not everything could be measured on the test split (see the warnings above). To try "
            f"again: {_resume(outcome)}",
            style="yellow",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    if report["ended_by"] is not None:
        way_on = f"To go on: {_with_more(outcome, command)}"
        if not report["front"]:
            raise NoResultError(
                f"{prefix}ended by {report['ended_by']} before any genome finished the last stage, "
                "so there is no front yet",
                way_on,
            )
        line = f"Ended by {report['ended_by']}. {way_on}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    elif report["completed"] and not report["front"]:
        raise _without_front(report)


def _with_more(outcome: Outcome, command: str | None) -> str:
    """The command that goes on under a higher limit."""
    keys = (limit.partition(" = ")[0] for limit in outcome.report["ended_by"].split(", "))
    return " ".join([command or _resume(outcome), *(f"--set {key}=MORE" for key in keys)])


def _resume(outcome: Outcome) -> str:
    """The command that goes on with the run."""
    config = "CONFIG " if outcome.report["functions"] else ""
    return f"coralx evolve {config}--resume {outcome.layout.shortest_name}"


def _without_front(report: dict[str, Any]) -> NoResultError:
    """Why there is no front, and what would help."""
    reasons = {failure["reason"] for failure in report["failed"]}
    if len(reasons) == 1 and not report["stopped"] and not report["provisional"]:
        return NoResultError(
            f"every genome failed, for the same reason: {reasons.pop()}",
            "The cause is the base, the data or this machine, not the search. Fix it and start a "
            "new run: this one does not try failed genomes again.",
        )
    return NoResultError(
        "no genome finished the last stage, so there is no front",
        "The report says why each was taken out. Try looser stop rules, higher survival rates or "
        "another learning-rate range.",
    )
