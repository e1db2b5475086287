"""A report as a person reads it in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from coralx.records.subjects import title_of
from coralx.report.choice import choice_parts
from coralx.report.classes import class_lines
from coralx.report.derived import yield_lines
from coralx.report.formatting import cheaper, duration, ratio
from coralx.report.front_comparison import comparison_lines
from coralx.report.front_table import front_parts
from coralx.report.hypervolume_reference import reference_line
from coralx.report.lineage import ancestry, origin_lines
from coralx.report.table_layout import fitting
from coralx.report.verification import verification_parts
from coralx.report.weighted_sum import weighted_lines
from coralx.text import counted

OTHER_COSTS = {
    "start": "starting",
    "measuring": "the final measurement",
    "restarts": "resumes and replaced workers",
    "measured_again": "measuring again",
    "failed_attempts": "failed attempts",
    "trained_again": "training again what was lost",
    "deriving": "deriving adapters without training",
}
"""What a run spends time on beside training and scoring: key of `beside_training`, and its name."""

LISTED = 6
"""Genomes that a line names; the rest is counted."""


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print everything that a user needs to choose an adapter."""
    console.print(Group(*_parts(report)))


def _parts(report: Mapping[str, Any]) -> list[RenderableType]:
    state = "" if report["completed"] else " (not completed)"
    if report["ended_by"]:
        state = f" (ended by {escape(report['ended_by'])})"
    device = "" if report["device"] == "none" else f" on {escape(report['device'])}"
    title = (
        f"[bold]{escape(report['run'])}[/]{state}: {escape(report['mode'])}, "
        f"seed {report['seed']}, {_generations(report)}, {escape(report['backend'])}{device}, "
        f"{duration(report['wall_seconds'])}"
    )
    parts: list[RenderableType] = [Text.from_markup(title)]
    if report["mode"] == "simulation" or report["backend"] == "simulated":
        parts.append(Text("Simulated: nothing was trained, so no figure here is evidence."))
    if report["constraints"]:
        parts.append(Text(f"Constraints: {', '.join(report['constraints'])}"))
    parts += [Text(line) for line in class_lines(report["task"], report["classes"])]
    parts += [Text(""), *front_parts(report)]
    parts += [Text(line) for line in yield_lines(report)]
    parts += choice_parts(report)
    parts += [Text(line) for line in (*weighted_lines(report), *comparison_lines(report))]
    if (tree := ancestry(report)) is not None:
        parts += [Text(""), tree]
    parts += verification_parts(report)
    lines = (*_provisional_lines(report), *_convergence_lines(report), *origin_lines(report))
    parts += [Text(line) for line in lines]
    parts += [Text(""), fitting(_efficiency_table(report["efficiency"]))]
    parts += [Text(line) for line in _efficiency_lines(report["efficiency"])]
    if report["stopped"] or report["failed"]:
        parts += [Text(""), fitting(_stopped_table(report))]
    parts += [Text(line) for line in _remark_lines(report)]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in report["warnings"]]
    return parts


def _provisional_lines(report: Mapping[str, Any]) -> list[str]:
    """Genomes that were promising when the run ended, or that are still on their way."""
    members = report["provisional"]
    if not members:
        return []
    names = ", ".join(f"{member['genome']} ({member['stage']})" for member in members[:LISTED])
    more = f" and {len(members) - LISTED} more" if len(members) > LISTED else ""
    return [f"Provisional, non-dominated at a stage before the last: {names}{more}"]


def _remark_lines(report: Mapping[str, Any]) -> list[str]:
    """What a reader should know before trusting the figures."""
    lines = []
    if report["test_reused"]:
        lines.append(
            "The test split is reused: it was measured before the run was extended, so its figures "
            "may be optimistic."
        )
    if report["not_judged"]:
        counts = Counter(entry["stage"] for entry in report["not_judged"])
        listed = ", ".join(f"{count} at {stage}" for stage, count in counts.items())
        lines.append(f"Too few steps to be judged by every stop rule: {listed}")
    for remark in report["notes"]:
        genomes = remark["genomes"]
        listed = ", ".join(genomes[:LISTED]) + (" ..." if len(genomes) > LISTED else "")
        lines.append(f"note: {remark['note']} ({len(genomes)}: {listed})")
    return lines


def _generations(report: Mapping[str, Any]) -> str:
    count, population = report["generations"], report["population_size"]
    if not count:
        return f"no generation completed (population {population})"
    return f"{counted(count, 'generation')} of {population}"


def _convergence_lines(report: Mapping[str, Any]) -> list[str]:
    """The front's hypervolume and the population's diversity, generation by generation."""
    rows = report["convergence"]
    if len(rows) < 2:
        return []
    volumes = " ".join("-" if r["hypervolume"] is None else f"{r['hypervolume']:.3f}" for r in rows)
    spread = " ".join(f"{row['diversity']:.2f}" for row in rows)
    lines = [f"Hypervolume by generation: {volumes}; diversity of the population: {spread}"]
    lines.append(reference_line(report["hypervolume_reference"]))
    if report["stalled"]:
        # runs of earlier versions did not watch the best figures
        best = (
            ""
            if report["hypervolume_reference"] is None
            else " nor the best figure of any objective"
        )
        lines.append(
            f"The search ended early: neither of these{best} changed for evolution.patience "
            "generations."
        )
    return lines


def _efficiency_table(efficiency: Mapping[str, Any]) -> Table:
    table = Table(title="Efficiency, stage by stage", title_justify="left")
    table.add_column("stage", no_wrap=True)
    for name in ("trained", "stopped", "went on", "planned steps", "trained steps", "time", "each"):
        table.add_column(name, justify="right")
    for name, row in efficiency["stage_breakdown"].items():
        table.add_row(
            escape(name),
            str(row["genomes_trained"]),
            str(row["genomes_stopped"]),
            str(row["genomes_promoted"]),
            f"{row['planned_steps']:,.1f}",
            f"{row['trained_steps']:,}",
            duration(row["total_time"]),
            duration(row["avg_time"]),
        )
    return table


def _efficiency_lines(efficiency: Mapping[str, Any]) -> list[str]:
    spent = efficiency["beside_training"]
    costs = [f"{name} {duration(spent[key])}" for key, name in OTHER_COSTS.items() if spent[key]]
    including = f", of which {', '.join(costs)}" if costs else ""
    lines = [
        f"{counted(efficiency['total_genomes'], 'genome')} in "
        f"{duration(efficiency['total_training_time'])} of worker time{including}."
    ]
    if efficiency["efficiency_ratio"] is None:
        lines.append(f"Against full training: {efficiency['note']}.")
    else:
        scope = f" ({efficiency['note']})" if efficiency["note"] else ""
        lines += [
            f"Against training all {efficiency['compared_genomes']} to the end, each scored once"
            f"{scope}: {duration(efficiency['compared_training_time'])} instead of about "
            f"{duration(efficiency['estimated_full_training_time'])}, "
            f"{cheaper(efficiency['efficiency_ratio'])} in time;",
            f"{efficiency['actual_steps']:,} steps instead of {efficiency['naive_steps']:,}, "
            f"{cheaper(efficiency['step_ratio'])} in steps (restarting every stage from scratch: "
            f"{efficiency['restart_steps']:,}, {ratio(efficiency['restart_step_ratio'])}).",
        ]
    return lines + _machine_lines(efficiency)


def _machine_lines(efficiency: Mapping[str, Any]) -> list[str]:
    lines = []
    if "utilisation" in efficiency:
        use = 100 * (efficiency["utilisation"] or 0.0)
        lines.append(
            f"Workers were busy {use:.0f} % of the time; {efficiency['gpu_hours']:.2f} GPU hours."
        )
        for name, what in (
            ("baseline", "the default recipe"),
            ("verification", "verifying the front"),
        ):
            if efficiency[f"{name}_steps"]:
                lines.append(
                    f"In addition, {what} took {counted(efficiency[f'{name}_steps'], 'step')} in "
                    f"{duration(efficiency[f'{name}_time'])}."
                )
        if efficiency["head_passes"]:
            took = duration(efficiency["head_time"])
            lines.append(f"In addition, training a head on the frozen base took {took}.")
    return lines


def _stopped_table(report: Mapping[str, Any]) -> Table:
    table = Table(title="Taken out early", title_justify="left")
    for name in ("genome", "stage", "step", "reason"):
        table.add_column(name)
    for stop in report["stopped"]:
        value = "" if stop["value"] is None else f" (it was {stop['value']:.4g})"
        table.add_row(
            escape(stop["genome"]),
            escape(stop["stage"]),
            str(stop["step"]),
            escape(stop["rule"]) + value,
        )
    for failure in report["failed"]:
        cells = (title_of(failure["genome"]), failure["stage"], "", failure["reason"])
        table.add_row(*map(escape, cells))
    return table
