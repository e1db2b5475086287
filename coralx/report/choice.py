"""Which member of the front to take, where nothing but the figures decides; and how far validation,
by which it was found, flattered it.

The best of many candidates on one sample of rows owes part of its lead to that sample. The rule is
the one-standard-error rule (Breiman et al. 1984, section 3.4.3; Hastie, Tibshirani and Friedman
2009, section 7.10): of the candidates whose figure lies within one standard error of the best's,
the simplest. The test split has no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import metric_entry, standard_error_name
from coralx.engine.state import RunState
from coralx.records.results import Metrics
from coralx.report.derived import origin_of
from coralx.report.formatting import figure
from coralx.report.looks import looks_behind
from coralx.report.table_layout import fitting

ONE_STANDARD_ERROR = "one-standard-error"
BEST = "best"
"""Where no standard error of the skill is recorded: the best figure wins."""


def choice_of(state: RunState, front: Sequence[str]) -> dict[str, Any] | None:
    """The `choice` part of the report; None without a front, and where no objective is a skill.

    Of the members whose skill on validation lies `within` one standard error of the best's the
    smallest is taken, by the first objective that is a size or a cost; without such an objective
    the one with the fewest looks behind it. Between equals the better skill decides, then the id.

    `optimism` is by how much validation was better than test, of the chosen and of the best: in
    the skill's own unit, more than 0 where validation flattered.
    """
    skill = _skill(state, front)
    if skill is None:
        return None
    known = [name for name in front if _figure(state, name, skill) is not None]
    losses = {name: _as_loss(state, name, skill) for name in known}
    best = min(known, key=lambda name: (losses[name], name))
    error = _standard_error(state, best, skill)
    within = [name for name in known if losses[name] <= losses[best] + (error or 0.0)]
    cost = next((o for o in _of(state, "adapter", "measurement")), None)
    looks = {name: looks_behind(state, name) for name in front}
    complexity = {n: looks[n] if cost is None else _as_loss(state, n, cost) for n in within}
    simplest = min(within, key=lambda name: (complexity[name], losses[name], name))
    chosen = best if error is None else simplest
    return {
        "genome": chosen,
        "rule": BEST if error is None else ONE_STANDARD_ERROR,
        "metric": skill.metric,
        "standard_error": error,
        "best": best,
        "within": within,
        "simplest_by": "looks" if cost is None else cost.metric,
        "looks_behind": looks,
        "optimism": {
            "chosen": _optimism(state, chosen, skill),
            "best": _optimism(state, best, skill),
        },
    }


def _skill(state: RunState, front: Sequence[str]) -> Objective | None:
    """The first objective whose figures are read off predictions and have standard errors; else the
    first one of predictions, or of a metric of the user's. None where no member has such a figure.
    """
    skills = [
        objective
        for objective in _of(state, "predictions", "user")
        if any(_figure(state, name, objective) is not None for name in front)
    ]
    with_errors = [
        objective
        for objective in skills
        if any(_standard_error(state, name, objective) is not None for name in front)
    ]
    return next(iter((*with_errors, *skills)), None)


def _of(state: RunState, *sources: str) -> list[Objective]:
    """The objectives whose figures come from one of these sources."""
    return [o for o in state.config.objectives if metric_entry(o.metric).source in sources]


def _metrics(state: RunState, genome: str) -> Metrics:
    return state.history.results[genome, state.last_stage].metrics


def _figure(state: RunState, genome: str, objective: Objective) -> float | None:
    return _metrics(state, genome).get(objective.metric)


def _standard_error(state: RunState, genome: str, objective: Objective) -> float | None:
    return _metrics(state, genome).get(standard_error_name(objective.metric))


def _as_loss(state: RunState, genome: str, objective: Objective) -> float:
    """The figure on validation, such that less is better."""
    value = _figure(state, genome, objective)
    if value is None:
        return math.inf
    return value if objective.direction == "minimize" else -value


def _optimism(state: RunState, genome: str, skill: Objective) -> float | None:
    """By how much validation was better than test; None where a figure is missing."""
    measured = state.history.measured(genome)
    test = measured.test.get(skill.metric) if measured is not None else None
    validation = _figure(state, genome, skill)
    if test is None or test.value is None or validation is None:
        return None
    return validation - test.value if skill.direction == "maximize" else test.value - validation


def choice_parts(report: Mapping[str, Any]) -> list[RenderableType]:
    """For a terminal: what is chosen, and the front's figures on both splits side by side."""
    choice = report["choice"]
    if choice is None:
        return []
    lines = [_chosen_line(choice, report), _optimism_line(choice)]
    return [
        *(Text(line) for line in lines if line),
        Text(""),
        fitting(_side_by_side(choice, report)),
    ]


def _chosen_line(choice: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    chosen, best, metric = choice["genome"], choice["best"], choice["metric"]
    member = next(member for member in report["front"] if member["genome"] == chosen)
    words = origin_of(member, report)
    name = chosen if words is None else f"{chosen} ({words})"
    if choice["rule"] == BEST:
        return (
            f"Chosen: {name}, the best {metric} on validation (no standard error of it is known)."
        )
    error = figure(choice["standard_error"])
    count = len(choice["within"])
    if count == 1:
        return (
            f"Chosen: {name}, the best {metric} on validation: no other member of the front lies "
            f"within one standard error ({error}) of it."
        )
    simplest = (
        "the fewest looks behind it"
        if choice["simplest_by"] == "looks"
        else f"the least {choice['simplest_by']}"
    )
    whose = "of the best's, its own" if chosen == best else f"of the best's, {best}"
    return (
        f"Chosen: {name}, which has {simplest} of the {count} members of the front whose {metric} "
        f"on validation lies within one standard error ({error}) {whose}."
    )


def _optimism_line(choice: Mapping[str, Any]) -> str:
    """Nothing where test figures are missing."""
    optimism = choice["optimism"]
    if optimism["chosen"] is None or optimism["best"] is None:
        return ""
    line = (
        f"Optimism, by how much {choice['metric']} is better on validation than on test: "
        f"{choice['genome']} {optimism['chosen']:+.4f}"
    )
    if choice["best"] != choice["genome"]:
        line += f"; the best on validation, {choice['best']}, {optimism['best']:+.4f}"
    return f"{line}."


def _side_by_side(choice: Mapping[str, Any], report: Mapping[str, Any]) -> Table:
    table = Table(title="Validation against test", title_justify="left")
    table.add_column("genome", no_wrap=True)
    metrics = [
        objective["metric"]
        for objective in report["objectives"]
        if metric_entry(objective["metric"]).source in ("predictions", "user")
    ]
    for metric in metrics:
        table.add_column(f"validation {metric}", justify="right")
        table.add_column(f"test {metric}", justify="right")
    table.add_column("looks behind it", justify="right")
    for member in report["front"]:
        cells = [escape(member["genome"])]
        for metric in metrics:
            test = (member["test"] or {}).get(metric) or {}
            cells.append(figure(member["validation"].get(metric), metric))
            cells.append(figure(test.get("value"), metric))
        table.add_row(*cells, f"{choice['looks_behind'][member['genome']]:,}")
    return table
