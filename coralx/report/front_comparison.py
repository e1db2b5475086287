"""Which differences between the front's members are real, each at 95 %.

That holds for one comparison by itself: of twenty between equals, one is expected to look real. The
report says so instead of correcting for it, since the intervals come from several methods and have
no p-values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coralx.engine.state import RunState
from coralx.records.results import Comparison
from coralx.records.subjects import HEAD, id_of
from coralx.report.baseline_names import untuned_base
from coralx.storage.history import History

LISTED = 6
"""Pairs that are named; the rest is counted."""


def front_pairs(history: History, front: Sequence[str]) -> list[dict[str, Any]] | None:
    """Each two members on each objective that is read off predictions; None where they were not
    compared, as no scores of single rows were kept."""
    if not _is_compared(history, front):
        return None
    members = set(front)
    return [as_json(c) for c in _comparisons(history) if {c.first, c.second} <= members]


def against_baselines(state: RunState, front: Sequence[str]) -> list[dict[str, Any]] | None:
    """Each member against the untuned base, a head trained on it, and recipes: `better`
    where the whole 95 % interval of the difference says so, in the objective's own direction."""
    if not _is_compared(state.history, front):
        return None
    # a pair is recorded once, in either order; the untuned base (None) always stands second
    sides = {
        (c.first, c.second, c.metric): c
        for known in _comparisons(state.history)
        for c in ((known, known.reversed) if known.second is not None else (known,))
    }
    baselines: list[tuple[str, str | None]] = [("untuned", None), ("trained_head", HEAD)]
    finishers = state.finishers().items()
    baselines += [(recipe.name.lower(), id_of(subject)) for recipe, subject in finishers]
    rows = []
    for name, second in baselines:
        for objective in state.config.objectives:
            for member in front:
                compared = sides.get((member, second, objective.metric))
                if compared is not None:
                    better = _is_better(compared, maximised=objective.direction == "maximize")
                    shown = as_json(compared)
                    del shown["first"], shown["second"]
                    rows.append({"genome": member, "baseline": name, **shown, "better": better})
    return rows


def as_json(compared: Comparison) -> dict[str, Any]:
    """A comparison as written into reports."""
    return {**vars(compared), "indistinguishable": compared.is_indistinguishable}


def _is_compared(history: History, front: Sequence[str]) -> bool:
    measured = [history.measured(member) for member in front]
    has_scores = any(m is not None and m.scores is not None for m in measured)
    return history.compared is not None and has_scores


def _comparisons(history: History) -> tuple[Comparison, ...]:
    return history.compared.pairs if history.compared else ()


def _is_better(compared: Comparison, *, maximised: bool) -> bool | None:
    if compared.low is None or compared.high is None:
        return None
    return compared.low > 0.0 if maximised else compared.high < 0.0


def comparison_lines(report: Mapping[str, Any]) -> list[str]:
    """For a terminal: which members the test split cannot tell apart, and which beat the baselines;
    objectives with the same outcome share a line."""
    if report["front_pairs"] is None:
        is_due = report["completed"] and report["front"]
        why = "The front's members were not compared: this run kept no scores of test rows."
        return [why] if is_due else []
    metrics_by_sentence: dict[str, list[str]] = {}
    untuned = untuned_base(report)
    compared = 0
    for objective in report["objectives"]:
        metric = objective["metric"]
        pairs = [p for p in report["front_pairs"] if p["metric"] == metric]
        if pairs:
            metrics_by_sentence.setdefault(_told_apart(pairs), []).append(metric)
        against = [a for a in report["front_against_baselines"] if a["metric"] == metric]
        if against:
            metrics_by_sentence.setdefault(_beaten(against, untuned), []).append(metric)
        compared += sum(row["indistinguishable"] is not None for row in (*pairs, *against))
    lines = [
        f"On {_listed(metrics)}{sentence}" for sentence, metrics in metrics_by_sentence.items()
    ]
    if compared > 1:
        lines.append(f"Each at 95 %, not corrected for the number of comparisons ({compared}).")
    return lines


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _told_apart(pairs: Sequence[Mapping[str, Any]]) -> str:
    unknown = [pair for pair in pairs if pair["indistinguishable"] is None]
    if unknown:
        return f" {_without_interval(unknown, len(pairs), 'members of the front')}"
    alike = [pair for pair in pairs if pair["indistinguishable"]]
    if not alike:
        return " the test split tells all members of the front apart."
    if len(alike) == len(pairs) > 1:
        return " the test split cannot tell any two members of the front apart."
    named = "; ".join(f"{pair['first']} and {pair['second']}" for pair in alike[:LISTED])
    rest = len(alike) - LISTED
    more = f"; and {rest} more of {len(pairs)} pairs" if rest > 0 else ""
    return f" the test split cannot tell apart: {named}{more}."


def _without_interval(unknown: Sequence[Mapping[str, Any]], count: int, what: str) -> str:
    """Who cannot be compared, with the first reason that was recorded."""
    if len(unknown) == count:
        which, verb = "no difference", "has"
    else:
        which, verb = f"only {count - len(unknown)} of {count} differences", "have"
    reasons = [row["remark"] for row in unknown if row.get("remark")]
    why = reasons[0] if reasons else "a figure is undefined"
    return f"{which} between {what} {verb} an interval: {why}."


def _beaten(against: Sequence[Mapping[str, Any]], untuned: str) -> str:
    """Which members are better than each baseline, as the end of a sentence."""
    clauses = []
    for baseline, title in (
        ("untuned", untuned),
        ("trained_head", "a trained head on the frozen base"),
        ("default_recipe", "the default recipe"),
        ("prior_center", "the prior's centre"),
    ):
        rows = [row for row in against if row["baseline"] == baseline]
        known = [row for row in rows if row["better"] is not None]
        if rows and not known:
            clauses.append(f"than {title}: unknown")
            continue
        better = [row["genome"] for row in known if row["better"]]
        if rows:
            all_of_them = "all" if len(rows) > 1 else better[0] if better else ""
            names = all_of_them if len(better) == len(rows) else ", ".join(better) or "none"
            clauses.append(f"than {title}: {names}")
    return f", better at 95 % {'; '.join(clauses)}."
