"""Warnings of a report on the front: constraints that it does not meet, objectives that it has no
figure for, members that could not be measured."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coralx.config.metric_catalogue import metric_entry
from coralx.engine.state import RunState
from coralx.records.results import StageResult
from coralx.records.subjects import title_of
from coralx.search.ranking import constraints_of, violations


def undefined_warnings(state: RunState) -> list[str]:
    """That no genome that finished has a figure for an objective, so that the front ignores it."""
    results = [state.history.results[genome, state.last_stage] for genome in state.finished()]
    warnings = []
    for metric in [objective.metric for objective in state.config.objectives]:
        has_figure = any(result.metrics.get(metric) is not None for result in results)
        if results and not has_figure:
            warnings.append(
                f"{metric} is undefined for every genome that finished ({_why(metric, results)}): "
                "the front is chosen by the other objectives"
            )
    return warnings


def _why(metric: str, results: Sequence[StageResult]) -> str:
    """The reasons that the results' notes give, each once; else what the catalogue says."""
    remark = re.compile(
        rf"(?:.*, )?{re.escape(metric)}(?:, .*)? undefined on the .*?: (.*)", re.DOTALL
    )
    matches = (remark.fullmatch(note) for result in results for note in result.notes)
    reasons = dict.fromkeys(match[1] for match in matches if match)  # each once, in order
    return ", or ".join(reasons) or metric_entry(metric).undefined


def feasibility_warnings(state: RunState, front: Sequence[str]) -> list[str]:
    """That no finished genome meets the constraints, or that some of the front meet them on the
    validation split, by which they were chosen, and not on the test split."""
    config, history = state.config, state.history
    figures = [history.results[genome, state.last_stage].metrics for genome in front]
    if violations(figures, constraints_of(config)).any():
        listed = ", ".join(f"`{text}`" for text in config.constraints)
        return [
            f"no genome that finished meets the constraints ({listed}): the front holds those "
            "that miss them by the least. Loosen them, widen search_space, or search for longer."
        ]
    warnings = []
    for text, constraint in zip(config.constraints, constraints_of(config), strict=True):
        for genome in front:
            measured = history.measured(genome)
            test = measured.test.get(constraint.metric) if measured else None
            if test and test.value is not None and not constraint.holds_for(test.value):
                warnings.append(
                    f"{genome} meets the constraint `{text}` on the validation split, but not on "
                    f"the test split ({test.value:.4g})"
                )
    return warnings


def unmeasured_warning(genome: str | None, reason: str) -> str:
    """That a member of the front, or a baseline (None: the untuned base), has no figures of the
    test split."""
    return f"{title_of(genome)} could not be measured on the test split: {reason}"
