"""The fidelity experiment: regret, signals, and that its README shows what its tables hold."""

from __future__ import annotations

import csv
import sys
from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.paths import ROOT

FOLDER = ROOT / "benchmarks" / "fidelity"
sys.path.append(str(FOLDER))

import analyse  # noqa: E402
from average import WeightAverage  # noqa: E402
from regret import random_regret, rank_sum  # noqa: E402
from signals import SIGNALS, Curve, read_curves, signals_of  # noqa: E402

from coralx.schedule.cohort_regret import (  # noqa: E402
    all_cohorts,
    estimate,
    regrets,
)

skills = st.lists(st.floats(0.5, 1.0), min_size=6, max_size=6).map(np.asarray)


def test_regret_is_the_best_full_result_less_the_best_kept() -> None:
    truth = np.asarray([0.9, 0.8, 0.7, 0.6])
    members = np.asarray([[0, 1, 2, 3], [1, 2, 3, 0]])
    misled = np.asarray([0.1, 0.2, 0.3, 0.4])
    assert regrets(misled[members], truth, members, 2) == pytest.approx([0.2, 0.2])
    assert regrets(misled[members], truth, members, 3) == pytest.approx([0.1, 0.1])
    assert regrets(truth[members], truth, members, 1) == pytest.approx([0.0, 0.0])


def test_a_signal_without_a_value_ranks_last_and_ties_go_to_the_first() -> None:
    truth = np.asarray([0.7, 0.9, 0.8])
    members = np.asarray([[0, 1, 2]])
    assert regrets(np.asarray([[0.1, np.nan, 0.2]]), truth, members, 2) == pytest.approx([0.1])
    assert regrets(np.asarray([[0.5, 0.5, 0.5]]), truth, members, 1) == pytest.approx([0.2])


@given(signal=skills, truth=skills)
@settings(max_examples=50, deadline=None)
def test_regret_is_never_negative_and_falls_as_more_are_kept(
    signal: np.ndarray, truth: np.ndarray
) -> None:
    members = all_cohorts(6, 4)
    lost = [regrets(signal[members], truth, members, keep) for keep in range(1, 5)]
    assert all((more <= fewer).all() for fewer, more in pairwise(lost))
    assert (lost[-1] == 0).all()


@given(truth=skills, keep=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_lots_lose_what_they_lose_on_average_over_all_draws(truth: np.ndarray, keep: int) -> None:
    members = np.asarray([[0, 2, 3, 5]])
    lost = [
        truth[members[0]].max() - truth[list(kept)].max() for kept in combinations(members[0], keep)
    ]
    assert random_regret(truth, members, keep) == pytest.approx([np.mean(lost)])


def test_the_rank_sum_counts_ranks_within_the_cohort() -> None:
    members = np.asarray([[0, 1, 2]])
    ranked = rank_sum(np.asarray([0.1, 0.2, 0.9, 5.0]), np.asarray([3.0, 1.0, 2.0, 0.0]))
    assert ranked(members).tolist() == [[4.0, 3.0, 5.0]]


def test_cohorts_of_one_have_the_mean_s_own_interval() -> None:
    """The delete-one jackknife of a mean is its textbook standard error."""
    values = np.asarray([1.0, 4.0, 2.0, 7.0, 5.0])
    found = estimate(values, all_cohorts(5, 1), 5)
    error = values.std(ddof=1) / np.sqrt(5)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.mean == pytest.approx(2.7764451 * error)


@given(values=st.lists(st.floats(0, 1), min_size=15, max_size=15).map(np.asarray))
@settings(max_examples=20, deadline=None)
def test_the_jackknife_leaves_each_configuration_out_once(values: np.ndarray) -> None:
    members = all_cohorts(6, 2)
    without = [values[(members != left_out).all(axis=1)].mean() for left_out in range(6)]
    spread = 5 / 6 * ((np.asarray(without) - np.mean(without)) ** 2).sum()
    found = estimate(values, members, 6)
    assert found.high - found.low == pytest.approx(2 * 2.5705818 * np.sqrt(spread))


def test_every_cohort_is_looked_at_once() -> None:
    members = all_cohorts(9, 4)
    assert len({tuple(sorted(row)) for row in members.tolist()}) == len(members) == comb(9, 4)


def test_extrapolations_meet_curves_of_their_own_kind() -> None:
    points = (2.5, 3.75, 5.0, 10.0, 15.0, 20.0)
    curve = Curve(
        "made up",
        0,
        {p: {"auroc": 1 - 0.6 * p**-0.3, "eval_loss": 0.9 - 0.1 * np.log(p)} for p in points},
    )
    for stage in (5.0, 20.0):
        law = SIGNALS["AUROC, power law"](curve, stage)
        assert np.exp(-law) == pytest.approx(0.6 * 100**-0.3)
        trend = SIGNALS["loss, log-linear"](curve, stage)
        assert -trend == pytest.approx(0.9 - 0.1 * np.log(100))


def test_a_mean_takes_the_last_three_evaluations_up_to_the_stage_s_end() -> None:
    curve = Curve("made up", 0, {p: {"auroc": p} for p in (2.5, 3.75, 5.0, 10.0)})
    assert SIGNALS["AUROC, mean of last 3"](curve, 5.0) == pytest.approx((2.5 + 3.75 + 5) / 3)


def test_the_average_of_weights_has_no_bias_towards_its_start() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage([weight], 0.5)
    for value in (1.0, 3.0):
        weight.data.fill_(value)
        average.update()
    with average.in_place():
        assert weight.item() == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75)
    assert weight.item() == 3.0


def test_the_table_can_be_replayed() -> None:
    """One row a task, configuration and point; named as other tables of LoRA runs are."""
    with (FOLDER / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    named = {"config", "base_model", "hidden_size", "layers", "lora_rank", "learning_rate"}
    assert named | {"batch_size", "dataset_size", "checkpoint"} <= set(rows[0])
    assert len({(row["task"], row["config"], row["checkpoint"]) for row in rows}) == len(rows)
    by_task = read_curves(FOLDER / "curves.csv")
    assert set(by_task) == {"liar", "tweets"}
    configs = [[curve.config for curve in curves] for curves in by_task.values()]
    assert configs[0] == configs[1] == list(range(len(configs[0])))
    for curves in by_task.values():
        for name, signal in signals_of(curves, 5.0).items():
            assert np.isfinite(signal(np.asarray([range(len(curves))]))).all(), name


def test_the_readme_shows_what_the_analysis_prints(capsys: pytest.CaptureFixture[str]) -> None:
    analyse.main()
    tables = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    results = readme.split("\n## Results\n")[1].split("\n## ")[0]
    assert [line for line in results.splitlines() if line.startswith("|")] == tables
    assert len(tables) > 40
