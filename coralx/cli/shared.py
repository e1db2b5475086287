"""What several commands use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from coralx.api import Outcome
from coralx.config import Config
from coralx.errors import ConfigError, NoResultError, UsageError
from coralx.printable import printable
from coralx.report.terminal import print_report
from coralx.run.layout import RUNS, is_run
from coralx.schedule.caveats import caveats, remote_code
from coralx.training.backend import REGISTRY

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the config, by its dotted path. May be repeated.",
    ),
]


def run_names(incomplete: str) -> list[str]:
    """For the shell to complete: the runs under `runs/` that begin so, and `latest`."""
    found = [path.name for path in RUNS.iterdir() if is_run(path)] if RUNS.is_dir() else []
    return sorted(name for name in ("latest", *found) if name.startswith(incomplete))


def known_backend(name: str | None) -> str | None:
    """Pass a backend's name through; raises UsageError for an unknown one."""
    known = ("auto", *REGISTRY)
    if name is not None and name not in known:
        raise UsageError(f"no backend named {name!r}", f"Known: {', '.join(known)}.")
    return name


def name_setting(name: str) -> str:
    """The override that names a run: text, whatever it looks like as YAML."""
    return f"experiment.name={json.dumps(printable(name), ensure_ascii=False)}"


def warn_of_plan(config: Config, console: Console, *, quiet: bool) -> None:
    """Say before anything is paid what speaks against the plan, or at least what is dangerous."""
    warn(remote_code(config) if quiet else caveats(config), console)


def warn(warnings: Iterable[str], console: Console) -> None:
    """Print each on a line, on a terminal without breaking words."""
    for warning in warnings:
        line = f"[yellow]warning:[/] {escape(warning)}"
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """A worker that finds fault with model or data does not know the config's file name."""
    try:
        yield
    except ConfigError as error:
        raise (error.located(str(path)) if error.source == "config" else error) from None


def print_outcome(outcome: Outcome, console: Console) -> None:
    """The report and where the run lies. Raises NoResultError if the search brought nothing."""
    print_report(outcome.report, console)
    report = outcome.report
    where = f"\nRun: {outcome.layout.root}"
    if any(member["adapter"] for member in report["front"]):
        where += f"\nAdapters: {outcome.layout.best}/<genome>"
    console.print(where, soft_wrap=True, highlight=False, markup=False)
    if report["ended_by"] is not None:
        console.print(
            f"Ended by {report['ended_by']}. To go on: coralx evolve "
            f"{'CONFIG ' if report['functions'] else ''}--resume {outcome.layout.shortest_name} "
            "--set budget.KEY=MORE",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    is_over = report["completed"] or report["ended_by"] is not None
    if is_over and not report["front"] and not (report["ended_by"] and report["provisional"]):
        raise NoResultError(
            "no genome finished the last stage, so there is no front",
            "The report says why each was taken out. Looser stop rules, higher survival rates or "
            "another learning-rate range help.",
        )
