"""Constraints: violation, constrained domination, and what they do to a search and its report."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_config, make_result, simulated_config
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.cli import main
from coralx.config.conditions import parse_constraint
from coralx.config.evolution import Objective
from coralx.engine.stage_decisions import promotion_order
from coralx.engine.state import RunState
from coralx.records.events import StageDecided
from coralx.records.results import Metrics
from coralx.records.verdicts import Promote
from coralx.report.front_warnings import feasibility_warnings
from coralx.schedule.stages import schedule_of
from coralx.search.nsga2 import Standing, survival_order
from coralx.search.pareto import best_first, domination, front, ranks
from coralx.search.ranking import constraints_of, violations
from coralx.search.tournament import tournament
from coralx.storage.history import History
from coralx.storage.ledger import Ledger

SKILL = Objective(metric="auroc", direction="maximize")
SIZE = Objective(metric="trainable_parameters", direction="minimize")
FLOOR = parse_constraint("auroc >= 0.7")


def missed(text: str, *values: float | None) -> list[float]:
    constraint = parse_constraint(text)
    metrics: list[Metrics] = [{constraint.metric: value} for value in values]
    return list(violations(metrics, [constraint]).tolist())


# -- violation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("trainable_parameters <= 500000", 500000, 0),
        ("trainable_parameters <= 500000", 750000, 0.5),
        ("auroc >= 0.8", 0.9, 0),
        ("auroc >= 0.8", 0.6, 0.25),
        ("loss_slope <= 0", 0.3, 0.3),  # a threshold of 0 gives no scale
        ("loss_slope <= -2", 1.0, 1.5),
        ("loss_slope < 0", -0.1, 0),
    ],
)
def test_violation_is_the_distance_relative_to_the_threshold(
    text: str, value: float, violation: float
) -> None:
    assert missed(text, value) == [pytest.approx(violation)]


@pytest.mark.parametrize("text", ["auroc > 0.7", "auroc < 0.7", "loss_slope < 0"])
def test_a_figure_on_a_strict_bound_is_infeasible_by_a_hair(text: str) -> None:
    constraint = parse_constraint(text)
    touching, beyond = missed(text, constraint.threshold, constraint.threshold + 1)
    assert 0 < touching < 1e-12
    assert beyond == 0 or beyond > touching


def test_violations_are_summed_and_a_missing_figure_is_the_worst() -> None:
    constraints = [FLOOR, parse_constraint("trainable_parameters <= 100")]
    metrics: list[Metrics] = [
        {"auroc": 0.35, "trainable_parameters": 150.0},
        {"auroc": None, "trainable_parameters": 1.0},
        {"auroc": 0.9, "trainable_parameters": 1.0},
    ]
    assert violations(metrics, constraints).tolist() == [pytest.approx(1.0), math.inf, 0.0]


def test_a_constraint_on_a_metric_that_nobody_has_is_left_out() -> None:
    metrics: list[Metrics] = [{"auroc": 0.6}, {"auroc": 0.8, "f1": None}]
    constraints = [FLOOR, parse_constraint("f1 >= 0.5")]
    assert violations(metrics, constraints).tolist() == [pytest.approx(1 / 7), 0.0]
    assert violations(metrics, [constraints[1]]).tolist() == [0.0, 0.0]
    assert violations([], constraints).tolist() == []


comparisons = st.sampled_from(["<", "<=", ">", ">="])
thresholds = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(comparisons, thresholds, thresholds)
def test_nothing_is_missed_exactly_where_the_constraint_holds(
    comparison: str, threshold: float, value: float
) -> None:
    constraint = parse_constraint(f"auroc {comparison} {threshold!r}")
    (found,) = violations([{"auroc": value}], [constraint]).tolist()
    assert (found == 0) == constraint.holds_for(value)
    assert found >= 0


# -- constrained domination ----------------------------------------------------------------------


@st.composite
def constrained(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Points on a small grid, some without a figure, and their violations."""
    count, width = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    figure = st.one_of(st.integers(0, 3).map(float), st.just(math.nan))
    row = st.lists(figure, min_size=width, max_size=width)
    points = np.array(draw(st.lists(row, min_size=count, max_size=count)))
    violation = st.sampled_from([0.0, 0.0, 0.5, 1.0, math.inf])
    return points, np.array(draw(st.lists(violation, min_size=count, max_size=count)))


def dominates(p: Any, q: Any) -> bool:
    """Definition 1 of Deb et al. 2002, section VI, of (violation, figures); a point that lacks a
    figure is dominated by all that lack none."""
    if np.isnan(p[1]).any() or np.isnan(q[1]).any():
        if np.isnan(p[1]).any() == np.isnan(q[1]).any():
            return bool(p[0] < q[0])
        return bool(np.isnan(q[1]).any())
    if p[0] == 0 and q[0] > 0:
        return True
    if p[0] > 0 and q[0] > 0:
        return bool(p[0] < q[0])
    return bool(p[0] == q[0] == 0 and (p[1] <= q[1]).all() and (p[1] < q[1]).any())


@given(constrained())
@settings(max_examples=300, deadline=None)
def test_domination_and_ranks_follow_the_definition(case: tuple[np.ndarray, np.ndarray]) -> None:
    points, violation = case
    figures = points[:, ~np.isnan(points).all(axis=0)]
    pairs = list(zip(violation, figures, strict=True))
    expected = np.array([[dominates(p, q) for q in pairs] for p in pairs])
    assert domination(points, violation).tolist() == expected.tolist()
    left, rank = set(range(len(points))), 0
    found = ranks(points, violation)
    while left:
        peeled = {i for i in left if not any(expected[j, i] for j in left)}
        assert {int(i) for i in np.flatnonzero(found == rank)} == peeled
        left, rank = left - peeled, rank + 1


@given(constrained())
@settings(max_examples=200, deadline=None)
def test_without_a_violation_all_is_as_without_constraints(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    points, none = case[0], np.zeros(len(case[0]))
    ids = [f"g{i:02d}" for i in range(len(points))]
    assert ranks(points, none).tolist() == ranks(points).tolist()
    assert best_first(ids, points, none) == best_first(ids, points)
    assert front(ids, points, none) == front(ids, points)


def test_front_holds_the_feasible_and_where_none_is_those_that_miss_the_least() -> None:
    points = np.array([[0, 9], [1, 1], [2, 2], [3, 0]], dtype=float)
    assert front(list("abcd"), points, np.array([0.1, 0, 0, 0])) == ["b", "d"]
    assert front(list("abcd"), points, np.array([0.4, 0.2, 0.3, 0.2])) == ["b", "d"]
    assert front(list("abcd"), points, np.array([0.1, math.inf, 0.3, 0.2])) == ["a"]


# -- who survives, breeds, and goes on -----------------------------------------------------------


def standing(genome: str, auroc: float | None, size: float = 1.0, place: int = 1) -> Standing:
    return Standing(genome, place, {"auroc": auroc, "trainable_parameters": size}, taken_out=False)


def test_survival_puts_the_feasible_first_within_a_stage_only() -> None:
    group = [
        standing("small", 0.5, 1),
        standing("worse", 0.4, 0.5),
        standing("good", 0.8, 9),
        standing("large", 0.75, 99),
        standing("none", None, 1),
    ]
    assert survival_order(group, [SKILL, SIZE], [FLOOR]) == [
        "good",
        "large",
        "small",
        "worse",
        "none",
    ]
    further = standing("further", 0.5, place=2)
    assert survival_order([*group, further], [SKILL, SIZE], [FLOOR])[0] == "further"


def test_tournaments_are_won_by_stage_then_constraints_then_domination_then_crowding() -> None:
    population = [
        Standing("further", 2, {"auroc": 0.1, "trainable_parameters": 9.0}, taken_out=False),
        standing("extreme", 0.9, 9),
        standing("other", 0.71, 1),
        standing("crowded", 0.8, 5),
        standing("dominated", 0.79, 6),
        standing("infeasible", 0.6, 0.1),
        standing("worse", 0.5, 0.1),
        Standing("stopped", 1, {"auroc": 0.99, "trainable_parameters": 0.1}, taken_out=True),
    ]
    wins = tournament(population, [SKILL, SIZE], [FLOOR])
    names = [one.genome for one in population]
    for better, worse in [
        ("further", "extreme"),
        ("extreme", "crowded"),
        ("crowded", "dominated"),
        ("dominated", "infeasible"),
        ("infeasible", "worse"),
        ("worse", "stopped"),
        ("extreme", "other"),  # equally crowded: the earlier place
        ("other", "dominated"),  # neither dominates, whatever their ranks
    ]:
        pair = names.index(better), names.index(worse)
        assert names[wins(*pair)] == names[wins(*pair[::-1])] == better
    drawn = tournament(population, [SKILL, SIZE], [FLOOR], by_crowding=False)
    assert (drawn(1, 3), drawn(3, 1)) == (1, 3)
    assert (drawn(3, 4), drawn(4, 3)) == (3, 3)


@pytest.mark.parametrize("promote_by", [None, "eval_loss"])
def test_promotion_prefers_the_feasible_whatever_it_goes_by(promote_by: str | None) -> None:
    stages = [
        {"name": "A", "epoch_budget": 1, "data_percentage": 50, "survival_rate": 0.5},
        {"name": "B", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
    ]
    stages[0]["promote_by"] = promote_by
    config = make_config(
        constraints=["calibration < 0.1"],
        objectives=[{"metric": "auroc"}],
        hyperband_config={"training_stages": stages},
    )
    results = [
        make_result("a", {"auroc": 0.9, "eval_loss": 0.1, "calibration": 0.3}),
        make_result("b", {"auroc": 0.8, "eval_loss": 0.2, "calibration": 0.05}),
        make_result("c", {"auroc": 0.7, "eval_loss": 0.3, "calibration": 0.01}),
        make_result("d", {"auroc": 0.99, "eval_loss": 0.01, "calibration": 0.1}),
    ]
    stage = schedule_of(config.hyperband_config)[0]
    assert promotion_order(config, stage, results, 4) == ["b", "c", "d", "a"]


def test_validate_shows_the_constraints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('constraints: ["auroc >= 0.7", "trainable_parameters < 5e5"]\n')
    monkeypatch.setattr(sys, "argv", ["coralx", "validate", str(path)])
    with pytest.raises(SystemExit):
        main()
    assert "constraints: auroc >= 0.7, trainable_parameters < 5e5" in capsys.readouterr().out


# -- a whole search ------------------------------------------------------------------------------


def evolve(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> api.Outcome:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing here outlives a loss of power
    evolution = {"population_size": 16, "generations": 4}
    return api.evolve(simulated_config(**{"evolution": evolution, **sections}))


def test_a_search_under_constraints_ends_in_a_feasible_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ["trainable_parameters <= 300000", "auroc > 0.6"]
    outcome = evolve(tmp_path, monkeypatch, constraints=limits)
    report = outcome.report
    assert report["constraints"] == limits
    assert report["front"]
    for member in report["front"]:
        assert member["validation"]["trainable_parameters"] <= 300000
        assert member["validation"]["auroc"] > 0.6
    assert report["convergence"][-1]["front"] == len(report["front"])
    assert not any("constraint" in warning for warning in report["warnings"])
    config = simulated_config(constraints=limits)
    history = History(Ledger.read_events(outcome.layout.ledger))
    for decision in history.decisions.values():
        going_on = [v.genome for v in decision.verdicts if isinstance(v, Promote)]
        assert_the_feasible_went_on(decision, history, going_on, config)


def assert_the_feasible_went_on(
    decision: StageDecided, history: History, going_on: list[str], config: Any
) -> None:
    """No genome went on that misses more than one that was left behind."""
    sound = [v.genome for v in decision.verdicts if not history.is_taken_out(v.genome)]
    figures = [history.results[genome, decision.stage].metrics for genome in sound]
    by = dict(zip(sound, violations(figures, constraints_of(config)), strict=True))
    left = [by[genome] for genome in sound if genome not in going_on]
    if going_on and left and decision.stage != "S3_finisher":
        assert max(by[genome] for genome in going_on) <= min(left)


def test_a_search_that_meets_no_constraint_says_so_and_shows_what_misses_the_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = evolve(tmp_path, monkeypatch, constraints=["auroc >= 0.999"]).report
    (warning,) = [text for text in report["warnings"] if "constraint" in text]
    assert "no genome that finished meets the constraints (`auroc >= 0.999`)" in warning
    assert "search_space" in warning
    (member,) = report["front"]
    assert member["validation"]["auroc"] < 0.999
    assert [row["hypervolume"] for row in report["convergence"]] == [None] * 4
    assert not report["stalled"]


def test_a_front_that_meets_its_constraints_on_validation_only_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = evolve(tmp_path, monkeypatch)
    history = History(Ledger.read_events(outcome.layout.ledger))
    drops = {
        member["genome"]: (member["test"]["auroc"]["value"], member["validation"]["auroc"])
        for member in outcome.report["front"]
        if member["test"]["auroc"]["value"] < member["validation"]["auroc"]
    }
    genome, (test, validation) = next(iter(drops.items()))
    config = simulated_config(constraints=[f"auroc >= {(test + validation) / 2}"])
    (warning,) = feasibility_warnings(RunState(config, history), [genome])
    assert warning.startswith(f"{genome} meets the constraint `auroc >= ")
    assert "but not on the test split" in warning
    assert genome in RunState(config, history).front()
    assert feasibility_warnings(RunState(simulated_config(), history), [genome]) == []


def test_measurements_within_their_spread_miss_a_constraint_by_as_much() -> None:
    """Else noise would decide between two that both miss it."""
    (constraint,) = constraints_of(make_config(constraints=["memory <= 100"]))
    figures = [{"memory": 105.0, "memory_spread": 10.0}, {"memory": 104.0, "memory_spread": 10.0}]
    first, second = violations(figures, [constraint])
    assert first == second == pytest.approx(0.045)
    apart = [{**found, "memory_spread": 0.1} for found in figures]
    first, second = violations(apart, [constraint])
    assert first > second
    met = [{"memory": 99.0, "memory_spread": 10.0}, *figures]  # near the others, and feasible
    assert violations(met, [constraint]) == pytest.approx([0.0, 0.045, 0.045])
