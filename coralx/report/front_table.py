"""The front as a person reads it: as wide a table as fits, else member by member."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from coralx.config.metric_catalogue import OF_TASK, split_metric_name
from coralx.report.baseline_names import baseline_title
from coralx.report.derived import derived_lines
from coralx.report.formatting import figure, modules, with_interval
from coralx.report.table_layout import FirstThatFits

ARROWS = {"maximize": "↑", "minimize": "↓"}
SQUEEZES = 5
"""How many layouts of the table are tried, each narrower than the one before."""

NARROW = 12
"""Columns of a title that is set on several lines."""

DERIVED = "derived"
"""In the place of a learning rate."""

SHORT = 10
"""Columns of modules that are cut short; `all-linear` is not."""


def front_parts(report: Mapping[str, Any]) -> list[RenderableType]:
    """Baselines and members with all objectives; below them how derived members came to be, and
    what each task makes of a member."""
    tables = [_table(report, squeeze) for squeeze in range(SQUEEZES)]
    shown = FirstThatFits((*tables, _blocks(report)))
    lines = (*derived_lines(report), *task_lines(report), *interval_lines(report))
    return [shown, *(Text(line) for line in lines)]


def interval_lines(report: Mapping[str, Any]) -> list[str]:
    """Which objectives have no interval, and why; with `safety` or `false_positive_cost` also the
    recall that their threshold has on the test split."""
    metrics = [objective["metric"] for objective in report["objectives"]]
    why: dict[str, list[str]] = {}
    recalls = []
    for member in report["front"]:
        test = member["test"] or {}
        for metric in metrics:
            remark = test.get(metric, {}).get("remark")
            if remark and metric not in why.setdefault(remark, []):
                why[remark].append(metric)
        recall = test.get("recall_at_threshold", {}).get("value")
        if recall is not None:
            recalls.append(f"{member['genome']} {figure(recall)}")
    lines = [f"No interval for {', '.join(names)}: {remark}." for remark, names in why.items()]
    if recalls and {split_metric_name(metric)[0] for metric in metrics} & {
        "safety",
        "false_positive_cost",
    }:
        listed = ", ".join(recalls)
        lines.append(
            f"Recall on the test split, at the threshold that gives 90 % on validation: {listed}"
        )
    return lines


def _title(report: Mapping[str, Any]) -> str:
    if report["simulated"]:
        return "Pareto front, simulated"
    return "Pareto front, measured on the test split (95 % interval)"


def task_lines(report: Mapping[str, Any]) -> list[str]:
    """Where a run has several tasks, each member's skill by task, unless the table has it."""
    objectives = {objective["metric"] for objective in report["objectives"]}
    lines = []
    for member in report["front"]:
        figures = {
            **member["validation"],
            **{name: measured["value"] for name, measured in (member["test"] or {}).items()},
        }
        for skill in ("auroc", "eval_loss"):
            prefix = skill + OF_TASK
            by_task = {name: v for name, v in figures.items() if name.startswith(prefix)}
            if by_task and not by_task.keys() <= objectives:
                each = [f"{n.removeprefix(prefix)} {figure(v)}" for n, v in sorted(by_task.items())]
                lines.append(f"{skill} by task, {member['genome']}: {', '.join(each)}")
            if by_task:  # a run has one skill: classifiers an AUROC, language models a loss
                break
    return lines


def _table(report: Mapping[str, Any], squeeze: int) -> Table:
    """The table as narrow as `squeeze` says. 1: long modules are cut; 2: also intervals stand below
    figures, and titles on several lines; 3: so do all genes, in one column; 4: and the table has no
    edge."""
    cut, below, one_column = squeeze >= 1, squeeze >= 2, squeeze >= 3  # cumulative
    table = Table(title=_title(report), title_justify="left", show_edge=squeeze < 4)
    genes = ["rank/alpha\nlr, modules"] if one_column else ["rank/alpha", "lr", "modules"]
    for name in ("genome", *genes):
        table.add_column(name, no_wrap=True)
    for objective in report["objectives"]:
        arrow = ARROWS[objective["direction"]]
        title = _broken(objective["metric"], arrow) if below else f"{objective['metric']} {arrow}"
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("steps\n+inherited" if below else "steps +inherited", justify="right")
    metrics = [objective["metric"] for objective in report["objectives"]]
    for name, figures in report["baselines"].items():
        title = baseline_title(name, report, between="\n")
        table.add_row(title, *[""] * len(genes), *_baseline(figures, metrics), "", style="dim")
    table.add_section()
    for member in report["front"]:
        test = member["test"] or {}
        own = _genes(member, cut=cut)
        table.add_row(
            escape(member["genome"]),
            *([f"{own[0]} {own[1]}\n{own[2]}"] if one_column else own),
            *(with_interval(test.get(metric), metric, below=below) for metric in metrics),
            _steps(member),
        )
    return table


def _genes(member: Mapping[str, Any], *, cut: bool) -> list[str]:
    """Rank and alpha, learning rate, modules; who was not trained had no learning rate."""
    genes = member["genes"]
    adapted = modules(genes["target_modules"], genes["layers"])
    if cut and len(adapted) > SHORT:
        adapted = adapted[: SHORT - 1] + "…"
    rank = f"{genes['rank']}/{genes['alpha']:g}"
    rate = f"{genes['learning_rate']:.2e}" if member.get("derived") is None else DERIVED
    return [rank, rate, escape(adapted)]


def _broken(metric: str, arrow: str) -> str:
    """A title on several lines, none longer than NARROW where its words allow it."""
    lines = [""]
    # broken behind the signs that metrics' names are composed with: `robustness@task:x`
    for piece in (*re.findall(r"[^_@:.-]*[_@:.-]|[^_@:.-]+", metric), f" {arrow}"):
        if lines[-1] and len(lines[-1]) + len(piece) > NARROW:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.strip()
    return "\n".join(lines)


def _steps(member: Mapping[str, Any]) -> str:
    inherited = member["lineage_steps"] - member["own_steps"]
    return str(member["own_steps"]) + (f" +{inherited}" if inherited else "")


def _baseline(figures: Mapping[str, float | None] | None, metrics: list[str]) -> list[str]:
    if figures is None:
        return ["not finished", *([""] * (len(metrics) - 1))]
    return [figure(figures.get(metric), metric) for metric in metrics]


def _blocks(report: Mapping[str, Any]) -> Text:
    """For a narrow terminal: a few short lines a member."""
    metrics = [objective["metric"] for objective in report["objectives"]]
    arrows = [ARROWS[objective["direction"]] for objective in report["objectives"]]
    lines = [f"[italic]{_title(report)}[/]"]
    for name, figures in report["baselines"].items():
        listed = "not finished"
        if figures is not None:
            listed = ", ".join(f"{m} {figure(figures.get(m), m)}" for m in metrics)
        lines.append(f"[dim]{baseline_title(name, report)}: {listed}[/]")
    for member in report["front"]:
        genes = member["genes"]
        test = member["test"] or {}
        lines += [
            f"[bold]{escape(member['genome'])}[/]: rank {genes['rank']}, alpha {genes['alpha']:g}, "
            + (f"lr {genes['learning_rate']:.2e}" if member.get("derived") is None else DERIVED)
            + f", {escape(modules(genes['target_modules'], genes['layers']))}",
            *(
                f"  {metric} {arrow} {with_interval(test.get(metric), metric)}"
                for metric, arrow in zip(metrics, arrows, strict=True)
            ),
            f"  steps +inherited {_steps(member)}",
        ]
    return Text.from_markup("\n".join(lines))
