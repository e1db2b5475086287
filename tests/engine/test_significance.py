"""Whom the test split can tell apart: what a run compares, keeps, and says about it.

Simulated curves, but with scores of rows: a measured genome says something about each of them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.backends.simulated import SimulatedBackend
from coralx.engine.significance import _judged_apart
from coralx.errors import DamagedRunError, Interrupted
from coralx.metrics.bootstrap import drawn_figures
from coralx.metrics.intervals import intervals
from coralx.metrics.paired_differences import difference_interval
from coralx.metrics.row_scores import RowScores, read_scores, write_scores
from coralx.records.events import FrontCompared, FrontMeasured
from coralx.records.jobs import MeasureJob
from coralx.records.results import Comparison, Measurement
from coralx.report.baseline_names import baseline_title, untuned_base, untuned_head
from coralx.report.front_comparison import comparison_lines
from coralx.report.front_table import interval_lines
from coralx.report.operating_points import operating_point_warnings
from coralx.rng import derive_seed
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from tests.support.factories import simulated_config
from tests.support.simulated_runs import KillAt, events_of_kind

ROWS = 80
OBJECTIVES = [
    {"metric": "auroc"},
    {"metric": "calibration"},
    {"metric": "trainable_parameters"},
]

LENIENT = {
    "training_stages": [
        {"name": "S0", "epoch_budget": 0.5, "data_percentage": 20, "survival_rate": 1.0},
        {"name": "S1", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
    ]
}
"""Everyone goes on, so that the front has several members."""


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def by_row(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Let the simulated backend score rows; returns who was measured."""
    measure = SimulatedBackend.measure
    measured: list[str | None] = []

    def with_rows(self: SimulatedBackend, job: MeasureJob, beat: Any) -> Measurement:
        found = measure(self, job, beat)
        measured.append(found.genome)
        labels = np.random.default_rng(0).integers(2, size=ROWS)
        rng = np.random.default_rng(derive_seed("rows", str(found.genome)))
        positive = rng.random(ROWS) + 0.5 * labels * (found.genome is not None)
        positive = 0.98 * positive / positive.max() + 0.01
        rows = RowScores(np.column_stack([1 - positive, positive]), labels)
        figures = intervals({"": rows}, 7)
        kept = write_scores(Path(str(job.scores)), {"": rows})
        return replace(found, test={**found.test, **figures}, scores=kept)

    monkeypatch.setattr(SimulatedBackend, "measure", with_rows)
    return measured


def evolve(name: str, **sections: Any) -> api.Outcome:
    defaults = {"objectives": OBJECTIVES, "hyperband_config": LENIENT}
    return api.evolve(simulated_config(**{**defaults, **sections}), name)


@pytest.mark.usefixtures("by_row")
def test_each_two_of_the_front_are_compared_on_what_is_read_off_predictions() -> None:
    outcome = evolve("run")
    report = outcome.report
    front = [member["genome"] for member in report["front"]]
    assert len(front) > 2
    found = {(p["first"], p["second"], p["metric"]): p for p in report["front_pairs"]}
    wanted = [(*pair, m) for pair in combinations(front, 2) for m in ("auroc", "calibration")]
    assert sorted(found) == sorted(wanted)
    scores = {name: read_scores(outcome.layout.scores(name)) for name in front}
    drawn = drawn_figures(scores, 7)
    own = {name: intervals(said, 7) for name, said in scores.items()}
    test = {member["genome"]: member["test"] for member in report["front"]}
    for (first, second, metric), pair in found.items():
        expected = test[first][metric]["value"] - test[second][metric]["value"]
        assert pair["difference"] == expected
        sides = own[first][metric], own[second][metric]
        ends = difference_interval(metric, *sides, (drawn[first][metric], drawn[second][metric]))
        assert (pair["low"], pair["high"]) == ends
        assert pair["indistinguishable"] == (pair["low"] <= 0 <= pair["high"])
    assert len({pair["indistinguishable"] for pair in found.values()}) == 2
    assert len(events_of_kind(outcome.layout, FrontCompared)) == 1


@pytest.mark.usefixtures("by_row")
def test_every_member_is_held_against_the_untuned_base_and_the_recipes() -> None:
    space = {"rank": {"choices": [2, 4]}}  # no recipe is sure to be searched
    runtime = {"backend": "simulated", "baseline": True}
    outcome = evolve("run", search_space=space, runtime=runtime)
    rows = outcome.report["front_against_baselines"]
    front = [member["genome"] for member in outcome.report["front"]]
    # the centre, which the search finished, is not compared with itself
    finished = next(m for m in outcome.report["front"] if m["genes"]["learning_rate"] == 3.6e-4)
    assert [(r["baseline"], r["metric"], r["genome"]) for r in rows] == [
        (baseline, metric, genome)
        for baseline in ("untuned", "default_recipe", "prior_center")
        for metric in ("auroc", "calibration")
        for genome in front
        if (baseline, genome) != ("prior_center", finished["genome"])
    ]
    for row in rows:
        rises = row["metric"] == "auroc"
        assert row["better"] == (row["low"] > 0 if rises else row["high"] < 0)
    against_nothing = [r for r in rows if (r["baseline"], r["metric"]) == ("untuned", "auroc")]
    assert all(row["better"] for row in against_nothing)
    assert (
        len(events_of_kind(outcome.layout, FrontCompared)) == 1
    )  # once the baseline was there too


@pytest.mark.usefixtures("by_row")
def test_a_default_recipe_on_the_front_is_held_against_the_others() -> None:
    space = {
        "rank": {"choices": [16, 32, 64]},  # the default recipe is the smallest
        "alpha_ratio": {"choices": [1.0]},
        "dropout": {"choices": [0.0]},
        "learning_rate": {"choices": [2e-4]},
        "target_modules": {"choices": ["all-linear"]},
    }
    evolution = {"population_size": 3, "generations": 1}
    outcome = evolve("run", search_space=space, evolution=evolution)
    front = [member["genome"] for member in outcome.report["front"]]
    (recipe,) = [m["genome"] for m in outcome.report["front"] if m["genes"]["rank"] == 16]
    assert len(front) == 3
    rows = outcome.report["front_against_baselines"]
    against = {
        row["genome"]: row
        for row in rows
        if (row["baseline"], row["metric"]) == ("default_recipe", "auroc")
    }
    assert set(against) == set(front) - {recipe}
    pairs = [pair for pair in outcome.report["front_pairs"] if pair["metric"] == "auroc"]
    for pair in pairs:
        if pair["second"] == recipe:
            assert against[pair["first"]]["difference"] == pair["difference"]
        if pair["first"] == recipe:
            assert against[pair["second"]]["difference"] == -pair["difference"]
            assert against[pair["second"]]["low"] == -pair["high"]


@pytest.mark.usefixtures("by_row")
def test_the_report_needs_the_ledger_alone() -> None:
    outcome = evolve("run")
    for file in outcome.layout.test_scores.iterdir():
        file.unlink()
    assert api.read_report(outcome.layout) == outcome.report
    before = outcome.layout.ledger.read_bytes()
    assert api.resume(outcome.layout).report == outcome.report
    assert outcome.layout.ledger.read_bytes() == before


def test_scores_outlive_the_checkpoints_of_those_that_left(by_row: list[str | None]) -> None:
    outcome = evolve("run")
    kept = {path.stem for path in outcome.layout.test_scores.iterdir()}
    assert kept == {name or "_untuned" for name in by_row}
    assert len(by_row) == len(set(by_row))


@pytest.mark.parametrize("damage", ["missing", "flipped", "none"])
def test_a_lost_file_is_measured_again_and_a_whole_one_is_not(
    by_row: list[str | None], damage: str
) -> None:
    whole = evolve("whole")
    count = len(by_row)
    by_row.clear()
    config = simulated_config(objectives=OBJECTIVES, hyperband_config=LENIENT)
    with pytest.raises(Interrupted):
        api.evolve(config, "cut", KillAt(FrontMeasured, count))
    layout = RunLayout(Path("runs/cut"))
    assert events_of_kind(layout, FrontCompared) == []
    lost = by_row[1]
    path = layout.scores(lost)
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    by_row.clear()
    again = api.resume(layout)
    assert by_row == ([] if damage == "none" else [lost])
    assert again.report["front_pairs"] == whole.report["front_pairs"]
    assert again.report["front_against_baselines"] == whole.report["front_against_baselines"]
    assert path.read_bytes() == whole.layout.scores(lost).read_bytes()


@pytest.mark.usefixtures("by_row")
def test_a_file_that_cannot_be_brought_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = SimulatedBackend.measure

    def forgetting(self: SimulatedBackend, job: MeasureJob, beat: Any) -> Measurement:
        found = measure(self, job, beat)
        Path(str(job.scores)).unlink()
        return found

    monkeypatch.setattr(SimulatedBackend, "measure", forgetting)
    with pytest.raises(DamagedRunError, match=r"_untuned\.safetensors: missing or damaged|g0"):
        evolve("run")


@pytest.mark.usefixtures("by_row")
def test_a_front_that_changes_is_compared_again() -> None:
    cut = evolve("run", budget={"max_steps": 8_000})
    assert cut.report["ended_by"] is not None
    assert cut.report["front"]
    budget = {"max_steps": 10**6}
    config = simulated_config(objectives=OBJECTIVES, hyperband_config=LENIENT, budget=budget)
    done = api.resume(cut.layout, config)
    assert done.report["completed"]
    fronts = [{m["genome"] for m in outcome.report["front"]} for outcome in (cut, done)]
    assert fronts[0] != fronts[1]
    events = events_of_kind(done.layout, FrontCompared)
    assert len(events) == 2
    named = {name for p in done.report["front_pairs"] for name in (p["first"], p["second"])}
    assert named == fronts[1]


def test_where_no_rows_were_scored_nothing_is_compared_and_the_report_says_so() -> None:
    outcome = evolve("run")
    assert events_of_kind(outcome.layout, FrontCompared) == [FrontCompared(())]
    assert outcome.report["front_pairs"] is None
    assert outcome.report["front_against_baselines"] is None
    (line,) = comparison_lines(outcome.report)
    assert "not compared: this run kept no scores of test rows" in line
    assert comparison_lines({**outcome.report, "completed": False}) == []
    assert len(events_of_kind(api.resume(outcome.layout).layout, FrontCompared)) == 1


@pytest.mark.usefixtures("by_row")
def test_exact_objectives_are_never_resampled() -> None:
    exact = [{"metric": "trainable_parameters"}, {"metric": "adapter_bytes"}]
    outcome = api.evolve(simulated_config(objectives=exact), "run")
    assert events_of_kind(outcome.layout, FrontCompared) == [FrontCompared(())]
    assert outcome.report["front_pairs"] == []
    assert comparison_lines(outcome.report) == []


@pytest.mark.usefixtures("by_row")
def test_an_undefined_figure_leaves_the_comparison_undefined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure = SimulatedBackend.measure

    def without(self: SimulatedBackend, job: MeasureJob, beat: Any) -> Measurement:
        found = measure(self, job, beat)
        if job.genome is not None:
            return found
        nothing = replace(found.test["auroc"], value=None, low=None, high=None)
        return replace(found, test={**found.test, "auroc": nothing})

    monkeypatch.setattr(SimulatedBackend, "measure", without)
    rows = evolve("run").report["front_against_baselines"]
    for row in rows:
        if (row["baseline"], row["metric"]) == ("untuned", "auroc"):
            nothing = (row["difference"], row["low"], row["indistinguishable"], row["better"])
            assert nothing == (None, None, None, None)
        else:
            assert row["low"] <= row["difference"] <= row["high"]


def test_attacks_judged_otherwise_by_an_earlier_version_are_not_compared_and_warned_of() -> None:
    rows = {
        name: {"": RowScores(np.full((4, 2), 0.5), withstood=np.ones(2), attacked=attacked)}
        for name, attacked in (("old", None), ("new", np.ones(2)))
    }
    assert _judged_apart(rows["old"], rows["new"])
    assert not _judged_apart(rows["new"], rows["new"])
    history = History()
    assert operating_point_warnings(history) == []
    for name, figures in (("a", {"safety": 0.5}), ("b", {"safety": 0.9, "safety_argmax": 0.5})):
        history.results[name, "S0"] = SimpleNamespace(metrics=figures)  # type: ignore[assignment]
    (warning,) = operating_point_warnings(history)
    assert warning.startswith("safety: 1 of 2 results come from an earlier version")
    del history.results["a", "S0"]
    assert operating_point_warnings(history) == []


def test_objectives_without_an_interval_and_the_recall_of_the_threshold_are_told() -> None:
    none = {"value": 0.2, "low": None, "high": None, "remark": "too few rows"}
    report = {
        "objectives": [{"metric": "auroc"}, {"metric": "false_positive_cost"}],
        "front": [
            {"genome": name, "test": {"false_positive_cost": none, "recall_at_threshold": found}}
            for name, found in (("a", {"value": 0.875}), ("b", {"value": None}))
        ],
    }
    assert interval_lines(report) == [
        "No interval for false_positive_cost: too few rows.",
        "Recall on the test split, at the threshold that gives 90 % on validation: a 0.8750",
    ]
    report["objectives"] = [{"metric": "auroc"}]
    assert interval_lines(report) == []


def test_the_untuned_model_of_a_sequence_classifier_is_called_a_random_head() -> None:
    report = {"untuned_head": untuned_head(simulated_config())}
    assert baseline_title("untuned", report) == "untuned (random head)"
    assert baseline_title("default_recipe", report) == "default_recipe"
    assert untuned_base(report) == "the untuned base (with a random head)"
    sft = {"untuned_head": untuned_head(simulated_config(model={"task": "sft"}))}
    assert baseline_title("untuned", sft) == "untuned"
    assert untuned_base({}) == "the untuned base"


# -- records and words ---------------------------------------------------------------------------

ends = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)


@given(st.floats(-1, 1), ends)
def test_a_comparison_reversed_says_the_same(difference: float, interval: list[float]) -> None:
    low, high = interval
    compared = Comparison("a", "b", "auroc", difference, low, high)
    assert compared.reversed.is_indistinguishable == compared.is_indistinguishable
    assert compared.reversed.reversed == compared
    assert compared.is_indistinguishable == (interval[0] <= 0 <= interval[1])
    unknown = Comparison("a", "b", "auroc", None, None, None)
    assert unknown.reversed.reversed == unknown
    assert unknown.is_indistinguishable is None


def pair(first: str, second: str, *, alike: bool) -> dict[str, Any]:
    return {"first": first, "second": second, "metric": "auroc", "indistinguishable": alike}


def lines(pairs: list[dict[str, Any]], against: list[dict[str, Any]] | None = None) -> list[str]:
    report = {
        "objectives": [{"metric": "auroc"}, {"metric": "trainable_parameters"}],
        "front_pairs": pairs,
        "front_against_baselines": against or [],
    }
    return comparison_lines(report)


def test_who_cannot_be_told_apart_is_said_in_a_line() -> None:
    named = lines([pair("a", "b", alike=True), pair("a", "c", alike=False)])
    uncorrected = "Each at 95 %, not corrected for the number of comparisons (2)."
    assert named == ["On auroc the test split cannot tell apart: a and b.", uncorrected]
    every, _ = lines([pair("a", "b", alike=True), pair("a", "c", alike=True)])
    assert every == "On auroc the test split cannot tell any two members of the front apart."
    none = lines([pair("a", "b", alike=False)])
    assert none == ["On auroc the test split tells all members of the front apart."]
    many = lines([pair("a", f"b{n}", alike=n > 0) for n in range(10)])
    assert many[0].count(" and b") == 6
    assert many[0].endswith("; and 3 more of 10 pairs.")
    assert lines([]) == []
    unknown = {**pair("a", "b", alike=True), "indistinguishable": None, "remark": "too few rows"}
    assert lines([unknown]) == [
        "On auroc no difference between members of the front has an interval: too few rows."
    ]
    some, *_ = lines([unknown, pair("a", "c", alike=False)])
    assert some.startswith("On auroc only 1 of 2 differences between members of the front have an")


def test_who_beats_the_baselines_is_said_in_a_line() -> None:
    def row(genome: str, baseline: str, *, better: bool | None) -> dict[str, Any]:
        alike = None if better is None else not better
        told = {"genome": genome, "baseline": baseline, "metric": "auroc", "better": better}
        return {**told, "indistinguishable": alike}

    against = [
        row("a", "untuned", better=True),
        row("b", "untuned", better=True),
        row("a", "default_recipe", better=True),
        row("b", "default_recipe", better=False),
    ]
    line, told = lines([], against)
    assert line == (
        "On auroc, better at 95 % than the untuned base: all; than the default recipe: a."
    )
    assert told == "Each at 95 %, not corrected for the number of comparisons (4)."
    (line,) = lines([], [row("a", "untuned", better=False)])
    assert line == "On auroc, better at 95 % than the untuned base: none."
    (line,) = lines([], [row("a", "untuned", better=None)])
    assert line == "On auroc, better at 95 % than the untuned base: unknown."
