"""`coralx simulate --tune-schedule`: what recorded curves say of the schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from coralx.api.quality import parse_quality
from coralx.api.schedule_tuning import Choice, Tuning, tune
from coralx.api.tuned_stages import stages_of, tuning_json
from coralx.cli.common import warn
from coralx.cli.consoles import error_console, output_console, print_json
from coralx.config import Config
from coralx.report.table_layout import fitting
from coralx.schedule.tuning import Regret
from coralx.schedule.tuning_costs import Schedule
from coralx.schedule.tuning_curves import METRIC, CurveTable
from coralx.text import counted, enumerated

FEW = 50
"""With fewer curves than this it is said that they are few."""


def carry_out(
    config: Config,
    sources: Sequence[str],
    metrics: Sequence[str],
    tolerance: float | None,
    *,
    as_json: bool,
) -> None:
    """Propose a schedule for the config, by the curves of files and runs."""
    qualities = [parse_quality(text) for text in dict.fromkeys(metrics)]
    with _progress() as report:
        tuning = tune(config, sources, qualities, tolerance, progress=report)
    if as_json:
        print_json({"tuning": tuning_json(tuning, config)})
        return
    console = output_console()
    _print_sources(tuning, console)
    _print_choices(tuning, console)
    _print_proposal(tuning, console)
    warn(_doubts(tuning, config), console)
    console.print()
    for line in _block(stages_of(tuning, tuning.proposal, config)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, which is gone in the end."""
    columns = (TextColumn("playing schedules on the curves"), BarColumn(), TimeRemainingColumn())
    console = error_console()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _print_sources(tuning: Tuning, console: Console) -> None:
    tables = enumerated(
        f"{table.name} ({counted(len(table), 'configuration')}, tolerance {table.tolerance:g})"
        for table in tuning.tables
    )
    lines = [f"Curves: {tables}.", f"Costs: {'; '.join(tuning.basis)}."]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _print_choices(tuning: Tuning, console: Console) -> None:
    size = tuning.population
    grid = Table(
        title=f"The cheapest schedules for a generation of {size}, by what they may lose",
        title_justify="left",
    )
    for name in ("within", "stages: end, going on (rows)"):
        grid.add_column(name)
    for name in ("trainings", "cheaper"):
        grid.add_column(name, justify="right")
    for table in tuning.tables:
        grid.add_column(f"regret, {table.name}", justify="right")
    grid.add_row("as it is", *_row(tuning, tuning.current))
    grid.add_section()
    tolerances = {table.tolerance for table in tuning.tables}
    for choice in tuning.choices:
        multiple = float(choice.within or 0)
        within = f"{multiple:g}x" if len(tolerances) > 1 else f"{multiple * max(tolerances):g}"
        grid.add_row(within, *_row(tuning, choice), style="bold" if multiple == 1 else None)
    console.print(fitting(grid))
    console.print(
        f"Trainings: what a generation costs, in whole ones; to train all {size} costs {size}. "
        "Regret: the mean over cohorts of the best full result less that of the best finisher; in "
        "brackets that of a schedule chosen without the configurations that it is judged by.",
        highlight=False,
    )


def _row(tuning: Tuning, choice: Choice) -> list[str]:
    regrets = []
    for place, regret in enumerate(choice.regrets):
        held_out = f" ({_number(choice.held_out[place])})" if choice.held_out else ""
        regrets.append(f"{_number(regret.mean.mean)}{held_out}" if regret else "not known")
    cheaper = f"{tuning.population / choice.cost:.2f}x"
    return [_stages(choice.schedule), f"{choice.cost:.2f}", cheaper, *regrets]


def _stages(schedule: Schedule) -> str:
    """`5 %: 4 (64, loss), 40 %: 1 (256)`."""
    parts = []
    for rung in schedule.rungs:
        by = "" if rung.figure == METRIC else f", {rung.figure}"
        rows = f"{rung.rows}{by}" if rung.rows else "not scored"
        parts.append(f"{float(100 * rung.share):.3g} %: {rung.kept} ({rows})")
    return ", ".join(parts) or "none"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"


def _print_proposal(tuning: Tuning, console: Console) -> None:
    proposal = tuning.proposal
    ratio = tuning.current.cost / proposal.cost
    than = f"{ratio:.2f}x cheaper" if ratio >= 1 else f"{1 / ratio:.2f}x dearer"
    console.print(
        f"\nProposed: {proposal.cost:.2f} trainings a generation, {than} than the config's own.",
        highlight=False,
    )
    for place, (table, regret) in enumerate(zip(tuning.tables, proposal.regrets, strict=True)):
        if regret is not None:
            line = _expectation(table, regret, proposal, place)
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def _expectation(table: CurveTable, regret: Regret, choice: Choice, place: int) -> str:
    mean, others = regret.mean, choice.from_others[place]
    elsewhere = f", on the other tables alone {_number(others)}" if others is not None else ""
    return (
        f"  {table.name}: mean regret {_number(mean.mean)} (95 % {_number(mean.low)} to "
        f"{_number(mean.high)}), in nine of ten cohorts at most {_number(regret.often)}. Chosen "
        f"without those it is judged by: {_number(choice.held_out[place])}{elsewhere}."
    )


def _doubts(tuning: Tuning, config: Config) -> Iterator[str]:
    """What the figures do not show."""
    proposal = tuning.proposal
    for table, held_out in zip(tuning.tables, proposal.held_out, strict=True):
        for remark in table.remarks:
            yield f"{table.name}: {remark}"
        if len(table) < FEW:
            yield (
                f"{table.name}: {counted(len(table), 'curve')} are few: cohorts of "
                f"{tuning.population} share most of their members, and what is best here need not "
                "be elsewhere"
            )
        if held_out > table.tolerance:
            yield (
                f"{table.name}: chosen without those it is judged by, the schedule loses "
                f"{_number(held_out)}, more than {_number(table.tolerance)}: expect that of new "
                "configurations, or ask for a smaller --tolerance"
            )
    if not proposal.schedule.rungs:
        yield "no cut keeps the best of these curves well enough: train every genome to the end"
    if len(config.objectives) > 1:
        yield (
            "the curves were judged by one figure: stages that rank by several objectives keep "
            "fewer of the best on it, so the proposal names what to rank by (promote_by)"
        )


def _block(stages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The stages in YAML, to be pasted into a config."""
    yield "hyperband_config:"
    yield "  training_stages:"
    for stage in stages:
        yield f"    - {{{', '.join(f'{key}: {value}' for key, value in stage.items())}}}"
