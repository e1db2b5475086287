"""The front verified: figures of inherited weights beside those of the same genes from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from coralx.config.metric_catalogue import metric_entry
from coralx.engine.state import RunState
from coralx.engine.verification import fresh_steps, heirs, loss_of
from coralx.records.results import Measurement, Metrics
from coralx.records.subjects import FromScratch, id_of
from coralx.report.formatting import figure, with_interval
from coralx.report.front_comparison import as_json
from coralx.report.table_layout import FirstThatFits
from coralx.storage.layout import RunLayout

TITLE = "Front verified: inherited weights against fresh ones"


def verification_of(
    state: RunState, front: Sequence[str], layout: RunLayout | None
) -> dict[str, Any] | None:
    """The `verification` part of the report; None where it was never asked for.

    `members` are those of the front that began with weights of others, or are derived from such;
    `trained_from_scratch` the rest, which need no verification: they, or what they are derived
    from, were trained from scratch in the search.
    """
    # a resume without the option still shows what an earlier one verified
    was_begun = any(isinstance(subject, FromScratch) for subject, _ in state.history.trained_beside)
    if not (state.config.runtime.verify_front or was_begun):
        return None
    inherited = heirs(state.history, front)
    return {
        "members": [_member(state, name, layout) for name in inherited],
        "trained_from_scratch": [name for name in front if name not in inherited],
    }


def _member(state: RunState, name: str, layout: RunLayout | None) -> dict[str, Any]:
    history, last_stage = state.history, state.last_stage
    fresh = FromScratch(name)
    fresh_id = str(id_of(fresh))
    result = history.trained_beside.get((fresh, last_stage))
    ending, reason = "pending", None
    if (lost := loss_of(history, name)) is not None:
        ending, reason = lost
    elif fresh in history.measurements:
        ending = "verified"
    elif fresh in history.unmeasured:
        ending, reason = "failed", f"could not be measured: {history.unmeasured[fresh]}"
    measured = history.measurements
    compared = history.compared.pairs if history.compared else ()
    return {
        "genome": name,
        "state": ending,
        "reason": reason,
        "own_steps": history.own_steps(name),
        "lineage_steps": history.lineage_steps(name),
        "fresh_steps": fresh_steps(history, name) if result else None,
        "inherited": _figures(history.results[name, last_stage].metrics, history.measured(name)),
        "fresh": _figures(result.metrics, measured[fresh])
        if result and ending == "verified"
        else None,
        "differences": [as_json(c) for c in compared if (c.first, c.second) == (name, fresh_id)],
        "adapter": _adapter(layout, fresh_id, last_stage),
    }


def _figures(validation: Metrics, measured: Measurement | None) -> dict[str, Any]:
    test = {name: asdict(interval) for name, interval in measured.test.items()} if measured else {}
    return {"validation": dict(validation), "test": test}


def _adapter(layout: RunLayout | None, fresh: str, last_stage: str) -> str | None:
    """Where the adapter trained from scratch lies in the run folder."""
    if layout is None:
        return None
    folder = layout.checkpoint(fresh, last_stage)
    return layout.relative(folder) if (folder / "adapter_model.safetensors").is_file() else None


def verification_parts(report: Mapping[str, Any]) -> list[RenderableType]:
    """For a terminal: both side by side, then the differences that are significant."""
    verification = report["verification"]
    if verification is None:
        return []
    if not verification["members"]:
        has_derived = any(member.get("derived") is not None for member in report["front"])
        how = "trained from scratch" + (", or derived from what was" if has_derived else "")
        line = f"Nothing to verify: every member of the front was {how}."
        return [Text(""), Text(line)] if report["front"] else []
    metrics = [
        objective["metric"]
        for objective in report["objectives"]
        if metric_entry(objective["metric"]).source in ("predictions", "user")
    ]
    parts: list[RenderableType] = [Text("")]
    verified = [member for member in verification["members"] if member["state"] == "verified"]
    if verified:
        parts.append(FirstThatFits((_table(verified, metrics), _blocks(verified, metrics))))
    lines = [_difference(objective, verified) for objective in report["objectives"]]
    parts += [Text(line) for line in lines if line]
    for member in verification["members"]:
        if member["state"] == "pending":
            parts.append(Text(f"{member['genome']} has not been trained from scratch yet."))
        elif member["reason"] is not None:
            line = f"{member['genome']} from scratch {member['state']}: {member['reason']}"
            parts.append(Text(line))
    return [*parts, *(Text(line) for line in _exempt(report))]


def _exempt(report: Mapping[str, Any]) -> list[str]:
    """Who needs no verification, and why."""
    names = report["verification"]["trained_from_scratch"]
    derived = {member["genome"] for member in report["front"] if member.get("derived") is not None}
    groups = {
        "trained from scratch in the search": [name for name in names if name not in derived],
        "derived from what was trained from scratch": [name for name in names if name in derived],
    }
    return [f"No need to verify, {why}: {', '.join(who)}" for why, who in groups.items() if who]


def _table(members: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Table:
    table = Table(title=TITLE, title_justify="left")
    table.add_column("genome", no_wrap=True)
    table.add_column("weights")
    table.add_column("steps +inherited", justify="right")
    for metric in metrics:
        table.add_column(f"validation {metric}", justify="right")
        table.add_column(f"test {metric}", justify="right")
    for member in members:
        for weights in ("inherited", "fresh"):
            cells = []
            for metric in metrics:
                cells.append(figure(member[weights]["validation"].get(metric), metric))
                cells.append(with_interval(member[weights]["test"].get(metric), metric))
            name = escape(member["genome"]) if weights == "inherited" else ""
            table.add_row(name, weights, _steps(member)[weights], *cells)
    return table


def _steps(member: Mapping[str, Any]) -> dict[str, str]:
    before = member["lineage_steps"] - member["own_steps"]
    return {"inherited": f"{member['own_steps']} +{before}", "fresh": str(member["fresh_steps"])}


def _blocks(members: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Text:
    """The same for many objectives or a narrow terminal: a few lines a member."""
    lines = [f"[italic]{TITLE}[/]"]
    for member in members:
        steps = _steps(member)
        counts = ", ".join(f"{weights} {count}" for weights, count in steps.items())
        lines.append(f"[bold]{escape(member['genome'])}[/]: steps {counts}")
        for metric in metrics:
            for split in ("validation", "test"):
                values = []
                for weights in steps:
                    value = member[weights][split].get(metric)
                    shown = (figure if split == "validation" else with_interval)(value, metric)
                    values.append(f"{weights} {shown}")
                lines.append(f"  {metric}, {split}: {', '.join(values)}")
    return Text.from_markup("\n".join(lines))


def _difference(objective: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    """Whose inherited weights are better or worse than those from scratch, each at 95 %."""
    # differences are recorded as they are measured: less may be better
    sign = 1 if objective["direction"] == "maximize" else -1
    groups: dict[str, list[str]] = {"better": [], "worse": [], "indistinguishable": []}
    for member in members:
        for difference in member["differences"]:
            if difference["metric"] != objective["metric"] or difference["low"] is None:
                continue
            if difference["indistinguishable"]:
                group = "indistinguishable"
            else:
                group = "better" if sign * difference["difference"] > 0 else "worse"
            groups[group].append(member["genome"])
    clauses = [f"{group}: {', '.join(names)}" for group, names in groups.items() if names]
    start = f"Inherited against fresh on {objective['metric']}, each at 95 %, uncorrected: "
    return f"{start}{'; '.join(clauses)}." if clauses else ""
