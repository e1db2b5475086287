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
from coralx.report.classes import class_lines
from coralx.report.formatting import cheaper, duration, ratio
from coralx.report.front_comparison import comparison_lines
from coralx.report.front_table import front_parts
from coralx.report.hypervolume_reference import reference_line
from coralx.report.lineage import ancestry, origin_lines
from coralx.report.table_layout import fitting
from coralx.report.verification import verification_parts
from coralx.report.weighted_sum import weighted_lines
from coralx.text import counted

BESIDE = {
    "start": "starting",
    "measuring": "the final measurement",
    "restarts": "resumes and replaced workers",
    "measured_again": "measuring again",
    "failed_attempts": "failed attempts",
    "trained_again": "training again what was lost",
}
"""What a run spends beside training and scoring, in words."""

STILL = "Neither these nor the best figure on any objective had"


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print everything that a user needs to choose an adapter."""
    console.print(Group(*_parts(report)))


def _parts(report: Mapping[str, Any]) -> list[RenderableType]:
    state = "" if report["completed"] else " (not completed)"
    if report["ended_by"]:
        state = f" (ended by {escape(report['ended_by'])})"
    title = (
        f"[bold]{escape(report['run'])}[/]{state}: {escape(report['mode'])}, "
        f"seed {report['seed']}, {_generations(report)}, {escape(report['backend'])} on "
        f"{escape(report['device'])}, {duration(report['wall_seconds'])}"
    )
    parts: list[RenderableType] = [Text.from_markup(title)]
    if report["mode"] == "simulation" or report["backend"] == "simulated":
        parts.append(Text("Simulated: nothing was trained, no figure here is evidence."))
    if report["constraints"]:
        parts.append(Text(f"Constraints: {', '.join(report['constraints'])}"))
    parts += [Text(line) for line in class_lines(report["task"], report["classes"])]
    parts += [Text(""), *front_parts(report)]
    parts += [Text(line) for line in (*weighted_lines(report), *comparison_lines(report))]
    if (tree := ancestry(report)) is not None:
        parts += [Text(""), tree]
    parts += verification_parts(report)
    if report["provisional"]:
        names = ", ".join(
            f"{member['genome']} ({member['stage']})" for member in report["provisional"][:6]
        )
        parts.append(Text(f"Provisional (before the last stage, non-dominated there): {names}"))
    parts += [Text(line) for line in (*_convergence_lines(report), *origin_lines(report))]
    parts += [Text(""), fitting(_efficiency_table(report["efficiency"]))]
    parts += [Text(line) for line in _efficiency_lines(report["efficiency"])]
    if report["stopped"] or report["failed"]:
        parts += [Text(""), fitting(_stopped_table(report))]
    if report["test_reused"]:
        parts.append(Text("The test split was measured before and the run extended since: reused."))
    if report["not_judged"]:
        counts = Counter(entry["stage"] for entry in report["not_judged"])
        listed = ", ".join(f"{count} at {stage}" for stage, count in counts.items())
        parts.append(Text(f"Not judged by every stop rule, for too few steps: {listed}"))
    for remark in report["notes"]:
        genomes = remark["genomes"]
        listed = ", ".join(genomes[:6]) + (" ..." if len(genomes) > 6 else "")
        parts.append(Text(f"note: {remark['note']} ({len(genomes)}: {listed})"))
    parts += [Text(f"warning: {warning}", style="yellow") for warning in report["warnings"]]
    return parts


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
        what = "Neither had" if report["hypervolume_reference"] is None else STILL
        lines.append(f"{what} moved for evolution.patience generations, so the search ended.")
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
    beside = efficiency["beside_training"]
    told = [f"{what} {duration(beside[key])}" for key, what in BESIDE.items() if beside[key]]
    including = f", of these {', '.join(told)}" if told else ""
    lines = [
        f"{counted(efficiency['total_genomes'], 'genome')} in "
        f"{duration(efficiency['total_training_time'])} of workers' time{including}."
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
        for name, what in (("baseline", "the default recipe"), ("verification", "verifying")):
            if efficiency[f"{name}_steps"]:
                lines.append(
                    f"Beside that, {what} took {counted(efficiency[f'{name}_steps'], 'step')} in "
                    f"{duration(efficiency[f'{name}_time'])}."
                )
        if efficiency["head_passes"]:
            took = duration(efficiency["head_time"])
            lines.append(f"Beside that, training a head on the frozen base took {took}.")
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
