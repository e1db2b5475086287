"""The one-standard-error rule: which member of the front a report names, and why."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from coralx.records.derivations import Derivation
from coralx.records.events import Event, FrontMeasured, GenomeDerived, StageCompleted
from coralx.records.results import Interval, Measurement, Metrics
from coralx.report.choice import choice_parts
from tests.support.derived_runs import derivation, derived_config, derived_run, report_of

SKILL = "auroc"


def truncated(name: str, auroc: float, rank: int) -> GenomeDerived:
    return derivation(name, Derivation("truncate", ("a",), rank=rank), auroc, rank)


def choice(events: list[Event], **sections: Any) -> dict[str, Any]:
    found: dict[str, Any] = report_of(events, derived_config(**sections))["choice"]
    return found


def words(events: list[Event], **sections: Any) -> str:
    console = Console(file=io.StringIO(), width=300)
    for part in choice_parts(report_of(events, derived_config(**sections))):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


NEAR = (truncated("d00-00", 0.891, 2), truncated("d00-01", 0.8895, 1))
"""Genome a has 0.9 and a standard error of 0.01: one lies within it, the other just beyond."""


def test_the_smallest_within_one_standard_error_of_the_best_is_chosen() -> None:
    found = choice(derived_run(derived=NEAR))
    assert found == {
        "genome": "d00-00",
        "rule": "one-standard-error",
        "metric": SKILL,
        "standard_error": 0.01,
        "best": "a",
        "within": ["a", "d00-00"],
        "simplest_by": "trainable_parameters",
        "looks_behind": {"a": 2, "d00-00": 4, "d00-01": 4},
        "optimism": {"chosen": None, "best": pytest.approx(0.02)},
    }
    assert (
        "Chosen: d00-00 (a truncated to rank 2), which has the least trainable_parameters of the 2 "
        "members of the front whose auroc on validation lies within one standard error (0.0100) of "
        "the best's, a."
    ) in words(derived_run(derived=NEAR))


def test_where_only_the_best_is_within_it_is_chosen() -> None:
    alone = derived_run(derived=(truncated("d00-00", 0.8, 1),))
    assert choice(alone)["genome"] == "a"
    assert choice(alone)["within"] == ["a"]
    assert "no other member of the front lies within one standard error (0.0100) of it" in words(
        alone
    )


def changed(events: list[Event], change: Callable[[str, Metrics], Metrics]) -> list[Event]:
    """The events with other figures of validation."""
    return [
        replace(e, result=replace(e.result, metrics=change(e.result.genome, e.result.metrics)))
        if isinstance(e, StageCompleted | GenomeDerived)
        else e
        for e in events
    ]


def test_without_a_standard_error_the_best_is_chosen_and_the_report_says_so() -> None:
    earlier = changed(
        derived_run(derived=NEAR),
        lambda _, own: {n: v for n, v in own.items() if n != "auroc_standard_error"},
    )
    found = choice(earlier)
    assert (found["genome"], found["rule"], found["standard_error"]) == ("a", "best", None)
    assert "Chosen: a, the best auroc on validation (no standard error of it is known)." in words(
        earlier
    )


def test_without_an_objective_of_size_the_fewest_looks_decide() -> None:
    """Both derived ones are better by a hair, and stand behind twice as many looks."""
    objectives = [{"metric": SKILL}, {"metric": "eval_loss"}]
    better = (truncated("d00-00", 0.901, 2), truncated("d00-01", 0.902, 1))
    losses = {"a": 0.5, "d00-00": 0.51, "d00-01": 0.52}
    events = changed(
        derived_run(derived=better), lambda n, own: {**own, "eval_loss": losses.get(n, 0.9)}
    )
    events = events[:-1]  # the recorded front is that of other objectives
    found = choice(events, objectives=objectives)
    assert (found["genome"], found["best"], found["simplest_by"]) == ("a", "d00-01", "looks")
    assert set(found["within"]) == {"a", "d00-00", "d00-01"}
    assert "Chosen: a, which has the fewest looks behind it of the 3 members" in words(
        events, objectives=objectives
    )


def test_a_loss_is_better_where_it_is_less() -> None:
    losses = {"a": 0.30, "d00-00": 0.32, "d00-01": 0.35}
    error = {"eval_loss_standard_error": 0.03}
    events = changed(
        derived_run(derived=NEAR), lambda n, own: {**own, "eval_loss": losses.get(n, 0.9), **error}
    )
    test = {"eval_loss": Interval(0.36, 0.3, 0.4)}
    measured = FrontMeasured(Measurement("d00-00", {}, test))
    objectives = [{"metric": "trainable_parameters"}, {"metric": "eval_loss"}]
    found = choice([*events[:-1], measured], objectives=objectives)
    assert (found["genome"], found["best"]) == ("d00-00", "a")
    assert found["optimism"]["chosen"] == pytest.approx(0.04)


def test_the_terminal_shows_validation_beside_test() -> None:
    text = words(derived_run())
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "│ d00-01 │ 0.9050 │ 0.8850 │ 3 │" in rows
    assert "│ d00-02 │ 0.8960 │ 0.8900 │ 4 │" in rows
    assert (
        "Optimism, by how much auroc is better on validation than on test: d00-02 +0.0060; the "
        "best on validation, d00-01, +0.0200."
    ) in text


def test_without_a_front_nothing_is_chosen() -> None:
    events = derived_run(derived=())
    assert report_of(events[:2], derived_config())["choice"] is None
