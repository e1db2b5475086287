"""One number for each member of a front: scores by hand, what always holds, and where they show."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.cli import main
from coralx.errors import ConfigError, UsageError
from coralx.report.pareto_table import pareto_csv
from coralx.report.weighted_sum import parse_weights, scores, weighted, weighted_lines
from coralx.storage.layout import find_run
from tests.support.factories import make_config, simulated_config
from tests.support.reports import LENIENT, interval, shown

TWO = [
    {"metric": "auroc", "direction": "maximize"},
    {"metric": "trainable_parameters", "direction": "minimize"},
]
NAMES = [objective["metric"] for objective in TWO]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def coralx(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["coralx", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(str(caught.value.code or 0)), *capsys.readouterr()

    return run


def member(name: str, *values: float | None, metrics: list[str] = NAMES) -> dict[str, Any]:
    test = {metric: interval(v) for metric, v in zip(metrics, values, strict=True)}
    return {"genome": name, "validation": {}, "test": test}


def front(*rows: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    return [member("abcdefgh"[place], *row) for place, row in enumerate(rows)]


# -- the arithmetic ------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    members = front((0.8, 400.0), (0.9, 1000.0), (0.85, 500.0))
    # normalised: a (0, 1), b (1, 0), c (1/2, 5/6)
    assert scores(members, TWO, {"auroc": 2, "trainable_parameters": 1}) == pytest.approx(
        [1 / 3, 2 / 3, (2 * 0.5 + 5 / 6) / 3]
    )
    found = weighted(members, TWO, {"auroc": 1, "trainable_parameters": 1})
    assert [row["genome"] for row in found["scores"]] == ["c", "a", "b"]
    assert scores(members, TWO, {"auroc": 0, "trainable_parameters": 3}) == pytest.approx(
        [1, 0, 5 / 6]
    )


def test_where_all_are_equal_all_are_best() -> None:
    members = front((0.8, 7.0), (0.8, 7.0))
    assert scores(members, TWO, {"auroc": 1, "trainable_parameters": 1}) == [1, 1]
    assert scores(members[:1], TWO, {"auroc": 1}) == [1]
    assert scores([], TWO, {"auroc": 1}) == []


def test_who_lacks_a_weighted_figure_has_no_score_and_stands_last() -> None:
    members = front((None, 7.0), (0.8, 7.0), (0.9, 9.0))
    for lacking in members:
        lacking["validation"] = {"auroc": lacking["test"]["auroc"]["value"]}
    found = weighted(members, TWO, {"auroc": 3, "trainable_parameters": 1})
    assert [(row["genome"], row["score"]) for row in found["scores"]] == [
        ("c", 0.75),
        ("b", 0.25),
        ("a", None),
    ]
    assert scores(members, TWO, {"auroc": 0, "trainable_parameters": 1}) == [1, 1, 0]
    (line,) = weighted_lines({"weighted": found})
    assert line == (
        "By the weighted sum (auroc 3, trainable_parameters 1): c 0.75, b 0.25; "
        "not scored, a figure is missing: a"
    )


def test_two_splits_are_not_compared() -> None:
    members = front((0.5, 7.0), (None, 7.0), (0.6, 7.0))
    for one, value in zip(members, (0.9, 0.8, 0.7), strict=True):
        one["validation"] = {"auroc": value}
    assert scores(members, TWO, {"auroc": 1}) == pytest.approx([1, 0.5, 0])
    members[1]["test"] = None
    assert scores(members, TWO, {"auroc": 1}) == pytest.approx([1, 0.5, 0])


def test_measurements_within_their_spread_are_equal() -> None:
    latency = [{"metric": "latency_ms", "direction": "minimize"}]
    spreads = [(10.0, 0.2), (10.1, 0.2), (12.0, 0.2)]
    members = [{"genome": "x", "test": {"latency_ms": interval(*s)}} for s in spreads]
    assert scores(members, latency, {"latency_ms": 1}) == [1, 1, 0]
    unmeasured = [
        {"genome": "x", "test": None, "validation": {"latency_ms": v, "latency_ms_spread": s}}
        for v, s in spreads
    ]
    assert scores(unmeasured, latency, {"latency_ms": 1}) == [1, 1, 0]


def test_of_many_only_the_best_are_named() -> None:
    members = [member(f"g{n}", n / 10, 1.0) for n in range(11)]
    (line,) = weighted_lines({"weighted": weighted(members, TWO, {"auroc": 1})})
    assert line.endswith(": g10 1.00, g9 0.90, g8 0.80, g7 0.70, g6 0.60, g5 0.50, and 5 more")
    lost = weighted([member("g", None, 1.0)], TWO, {"auroc": 1})
    assert weighted_lines({"weighted": lost}) == [
        "By the weighted sum (auroc 1): no member has all its figures"
    ]
    assert weighted_lines({"weighted": None}) == []
    assert weighted_lines({"weighted": weighted([], TWO, {"auroc": 1})}) == []


finite = st.floats(allow_nan=False, allow_infinity=False)
figures = st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=8)
weights = st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0, 1e6]), min_size=3, max_size=3).filter(any)
directions = st.lists(st.sampled_from(["maximize", "minimize"]), min_size=3, max_size=3)
THREE = ["auroc", "eval_loss", "own.metrics:mine"]


def scored(
    rows: list[tuple[float, ...]], directions: list[str], weights: list[float]
) -> list[float]:
    objectives = [
        {"metric": metric, "direction": direction}
        for metric, direction in zip(THREE, directions, strict=True)
    ]
    members = [member(str(place), *row, metrics=THREE) for place, row in enumerate(rows)]
    found = scores(members, objectives, dict(zip(THREE, weights, strict=True)))
    assert all(score is not None for score in found)
    return [score for score in found if score is not None]


@given(figures, directions, weights)
def test_every_score_lies_between_0_and_1(
    rows: list[tuple[float, ...]], directions: list[str], weights: list[float]
) -> None:
    assert all(0 <= score <= 1 for score in scored(rows, directions, weights))


@given(figures, directions, weights, st.floats(1e-3, 1e3))
def test_all_weights_times_a_number_change_nothing(
    rows: list[tuple[float, ...]], directions: list[str], weights: list[float], factor: float
) -> None:
    scaled = [factor * weight for weight in weights]
    assert scored(rows, directions, scaled) == pytest.approx(scored(rows, directions, weights))


@given(figures, directions, weights)
def test_who_is_dominated_never_beats_who_dominates(
    rows: list[tuple[float, ...]], directions: list[str], weights: list[float]
) -> None:
    found = scored(rows, directions, weights)
    signs = np.array([1 if direction == "maximize" else -1 for direction in directions])
    for first, one in zip(found, rows, strict=True):
        for second, other in zip(found, rows, strict=True):
            if np.all(signs * one >= signs * other):
                assert first >= second


# -- configs and runs ----------------------------------------------------------------------------


def test_objectives_without_a_weight_count_one_as_soon_as_one_has_one() -> None:
    config = make_config(objectives=[{"metric": "auroc", "weight": 2}, {"metric": "memory"}])
    assert config.weights == {"auroc": 2, "memory": 1}
    assert make_config(objectives=[{"metric": "auroc"}]).weights is None
    assert make_config().weights is None
    for bad in (-1, "much", float("nan"), 2e6):
        with pytest.raises(ConfigError, match=r"objectives\.0\.weight"):
            make_config(objectives=[{"metric": "auroc", "weight": bad}])
    with pytest.raises(ConfigError, match="every `weight` is 0"):
        make_config(objectives=[{"metric": "auroc", "weight": 0}])


@pytest.mark.usefixtures("here")
def test_weights_decide_nothing_and_stand_in_report_and_table() -> None:
    plain = api.evolve(simulated_config(hyperband_config=LENIENT), "plain")
    assert plain.report["weighted"] is None
    assert "weighted_sum" not in plain.layout.pareto.read_text()
    heavy = [{"metric": "auroc", "weight": 2}, {"metric": "trainable_parameters"}]
    run = api.evolve(simulated_config(hyperband_config=LENIENT, objectives=heavy), "run")
    other = {"run", "weighted", "wall_seconds", "workers", "profile"}
    assert len(run.report["front"]) > 2
    assert {k: v for k, v in run.report.items() if k not in other} == {
        k: v for k, v in plain.report.items() if k not in other
    }
    found = run.report["weighted"]
    assert found["weights"] == {"auroc": 2, "trainable_parameters": 1}
    values = [row["score"] for row in found["scores"]]
    assert values == sorted(values, reverse=True)
    assert values[0] < 1  # nobody is best at both
    assert json.loads(run.layout.report.read_text())["weighted"] == found
    rows = list(csv.DictReader(io.StringIO(run.layout.pareto.read_text())))
    assert {row["genome"]: float(row["weighted_sum"]) for row in rows} == {
        row["genome"]: row["score"] for row in found["scores"]
    }
    assert "By the weighted sum (auroc 2, trainable_parameters 1): " in shown(run.report)
    assert "By the weighted sum" not in shown(plain.report)


def test_a_member_without_a_score_has_an_empty_cell() -> None:
    one = {
        **member("a", None, 1.0),
        "generation": 0,
        "genes": {},
        "own_steps": 1,
        "lineage_steps": 1,
    }
    scored = weighted([one], TWO, {"auroc": 1})
    report = {"objectives": TWO, "front": [one], "weighted": scored, "simulated": False}
    assert pareto_csv(report).splitlines()[1].endswith(",1,1,,false")


# -- coralx report --weights ---------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_coralx_report_weighs_any_run(coralx: Callable[..., tuple[int, str, str]]) -> None:
    outcome = api.evolve(simulated_config(hyperband_config=LENIENT), "run")
    before = {p: p.read_bytes() for p in outcome.layout.root.rglob("*") if p.is_file()}
    _, out, _ = coralx("report", "run", "--weights", "auroc=2", "--json")
    report = json.loads(out)
    expected = {"auroc": 2.0, "trainable_parameters": 1.0}
    assert report["weighted"] == weighted(outcome.report["front"], TWO, expected)
    assert {**report, "weighted": None} == outcome.report
    code, out, _ = coralx("report", "run", "--weights", " auroc = 2, trainable_parameters=0 ")
    assert code == 0
    best = max(outcome.report["front"], key=lambda member: member["test"]["auroc"]["value"])
    assert "By the weighted sum (auroc 2, trainable_parameters 0): " in out
    assert f"{best['genome']} 1.00" in out
    assert {p: p.read_bytes() for p in outcome.layout.root.rglob("*") if p.is_file()} == before
    code, out, err = coralx("report", "run", "--weights", "aurc=2")
    assert (code, out) == (2, "")
    assert "'aurc' is not an objective of this run (did you mean 'auroc'?)" in err
    assert "Its objectives: auroc, trainable_parameters." in err


@pytest.mark.usefixtures("here")
def test_weights_of_the_command_line_replace_those_of_the_config(
    coralx: Callable[..., tuple[int, str, str]],
) -> None:
    objectives = [{"metric": "auroc", "weight": 5}, {"metric": "calibration", "weight": 7}]
    api.evolve(simulated_config(objectives=objectives), "run")
    _, out, _ = coralx("report", "run", "--weights", "auroc=3", "--json")
    assert json.loads(out)["weighted"]["weights"] == {"auroc": 3, "calibration": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not of the form METRIC=WEIGHT"),
        ("auroc", "'auroc' is not of the form METRIC=WEIGHT"),
        ("auroc=1,", "'' is not of the form METRIC=WEIGHT"),
        ("=1", "'=1' is not of the form METRIC=WEIGHT"),
        ("f1=1", "'f1' is not an objective of this run"),
        ("auroc=-1", "'-1' is not a weight for auroc"),
        ("auroc=", "'' is not a weight for auroc"),
        ("auroc=much", "'much' is not a weight for auroc"),
        ("auroc=nan", "'nan' is not a weight for auroc"),
        ("auroc=inf", "'inf' is not a weight for auroc"),
        ("auroc=1,auroc=2", "auroc is given twice"),
        ("auroc=0,trainable_parameters=0", "all weights are 0"),
    ],
)
def test_bad_weights_are_told_in_one_message(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_weights(text, NAMES)
    assert message in caught.value.message
    assert caught.value.hint


def test_weights_of_tasks_and_functions_are_read() -> None:
    names = ["auroc@toxicity", "mine.metrics:cost"]
    assert parse_weights("auroc@toxicity=2,mine.metrics:cost=0.5", names) == {
        "auroc@toxicity": 2,
        "mine.metrics:cost": 0.5,
    }


@pytest.mark.usefixtures("here")
def test_the_report_of_a_weighted_run_is_made_again_from_its_folder() -> None:
    objectives = [{"metric": "auroc", "weight": 2}, {"metric": "memory"}]
    outcome = api.evolve(simulated_config(objectives=objectives), "run")
    assert api.read_report(find_run("run")) == outcome.report
    assert api.resume(outcome.layout).report == outcome.report
