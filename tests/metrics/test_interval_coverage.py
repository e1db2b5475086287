"""Intervals cover what they are of: simulated, with seeds that are fixed.

The whole table is made by `benchmarks/objectives/simulated_coverage.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "objectives"))

import simulated_coverage as simulation

from coralx.metrics.bootstrap import drawn_figures
from coralx.metrics.calibration import calibration, calibration_interval
from coralx.metrics.classification import auroc
from coralx.metrics.compute import fitted_on_validation
from coralx.metrics.delong import auroc_interval, worst_interval
from coralx.metrics.false_positive_cost import rate, suspicion, threshold
from coralx.metrics.intervals import intervals
from coralx.metrics.operating_point import LEAST_POSITIVES, rate_interval
from coralx.metrics.paired_differences import correlation, difference_interval
from coralx.metrics.proportion_intervals import (
    Ends,
    effective_rows,
    of_difference,
    of_mean,
    wilson,
)
from coralx.metrics.row_scores import RowScores
from coralx.metrics.safety import flagged

Sample = tuple[float, Ends]


def covered(draw: Callable[[np.random.Generator], Sample], truth: float, samples: int) -> float:
    """How often an interval holds the truth; it always holds the figure itself."""
    held = 0
    for seed in range(samples):
        value, (low, high) = draw(np.random.default_rng([seed, 15]))
        assert low <= value <= high
        held += low <= truth <= high
    return held / samples


def two_classes(positive: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - positive, positive])


def scored(
    rng: np.random.Generator, wanted: int, others: int, apart: float
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([1, 0], [wanted, others])
    return two_classes(expit(rng.normal(size=len(labels)) + apart * labels)), labels


@pytest.mark.parametrize(("wanted", "others"), [(5, 95), (10, 90), (50, 50)])
@pytest.mark.parametrize("apart", [0.5, 1.8, 3.0])
def test_an_auroc_is_covered_at_any_prevalence(wanted: int, others: int, apart: float) -> None:
    def draw(rng: np.random.Generator) -> Sample:
        scores, labels = scored(rng, wanted, others, apart)
        value = auroc(scores, labels)
        assert value is not None
        ends = auroc_interval(scores, labels, value)
        assert ends is not None
        return value, ends

    assert 0.92 <= covered(draw, float(norm.cdf(apart / 2**0.5)), 250) <= 1.0


def test_the_auroc_of_three_classes_is_covered() -> None:
    def rows(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 3
        logits = rng.normal(size=(count, 3)) + 1.2 * np.eye(3)[labels]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels

    def draw(rng: np.random.Generator) -> Sample:
        scores, labels = rows(rng, 90)
        value = auroc(scores, labels)
        assert value is not None
        ends = auroc_interval(scores, labels, value)
        assert ends is not None
        assert ends[1] - ends[0] < 0.25
        return value, ends

    truth = auroc(*rows(np.random.default_rng(1), 60_000))
    assert truth is not None
    assert 0.92 <= covered(draw, truth, 200) <= 1.0


def test_with_fewer_than_five_rows_of_a_class_an_auroc_has_no_interval() -> None:
    scores, labels = scored(np.random.default_rng(1), 4, 96, 1.0)
    assert auroc_interval(scores, labels, 0.7) is None
    rows = RowScores(scores, labels)
    found = intervals({"": rows}, 0, 50)["auroc"]
    assert found.value is not None
    assert (found.low, found.remark) == (None, "fewer than 5 rows of a class")


def test_the_delong_variance_is_that_of_pairs_counted_one_by_one() -> None:
    """DeLong et al. 1988, by their equations, on few scores with ties."""
    rng = np.random.default_rng(8)
    positive, negative = rng.integers(6, size=12) / 6, rng.integers(5, size=20) / 6
    kernel = (np.sign(positive[:, None] - negative) + 1) / 2
    area = kernel.mean()
    variance = kernel.mean(axis=1).var(ddof=1) / 12 + kernel.mean(axis=0).var(ddof=1) / 20
    spread = (1 - area) / (2 - area) + area / (1 + area)
    modelled = area * (1 - area) * (1 + 15 * spread) / (12 * 20)
    labels = np.repeat([1, 0], [12, 20])
    scores = two_classes(np.concatenate([positive, negative]))
    expected = wilson(area, area * (1 - area) / max(variance, modelled))
    assert auroc_interval(scores, labels, area) == pytest.approx(expected)


def test_the_worst_of_equal_groups_is_covered() -> None:
    """The lowest of four figures that are alike lies below all of them more often than not."""

    def draw(rng: np.random.Generator) -> Sample:
        groups = [scored(rng, 25, 25, 1.2) for _ in range(4)]
        areas = [auroc(*group) for group in groups]
        told = [(*group, area) for group, area in zip(groups, areas, strict=True) if area]
        ends = worst_interval(told)
        assert ends is not None
        return min(area for *_, area in told), ends

    assert 0.93 <= covered(draw, float(norm.cdf(1.2 / 2**0.5)), 150) <= 1.0


@pytest.mark.parametrize("count", [100, 500])
@pytest.mark.parametrize(("prevalence", "sureness"), [(0.5, 1.0), (0.05, 1.0), (0.5, 2.0)])
def test_a_calibration_error_is_covered_also_where_there_is_none(
    count: int, prevalence: float, sureness: float
) -> None:
    def rows(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        logits = 1.8 * rng.normal(size=size) + np.log(prevalence / (1 - prevalence))
        labels = (expit(logits) > rng.random(size)).astype(np.int64)
        return two_classes(expit(sureness * logits)), labels

    def draw(rng: np.random.Generator) -> Sample:
        scores, labels = rows(rng, count)
        return calibration(scores, labels), calibration_interval(scores, labels, 1, 200)

    truth = calibration(*rows(np.random.default_rng(1), 400_000)) if sureness > 1 else 0.0
    assert covered(draw, truth, 150) >= 0.93


def test_a_model_that_is_far_too_sure_is_told_from_a_calibrated_one() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=2000)
    labels = (expit(logits) > rng.random(2000)).astype(np.int64)
    low, high = calibration_interval(two_classes(expit(4 * logits)), labels, 0, 300)
    assert 0.1 < low < high < 0.3


@pytest.mark.parametrize(("known", "apart"), [(40, 1.8), (60, 3.0), (200, 1.2)])
def test_what_a_wanted_recall_costs_is_covered(known: int, apart: float) -> None:
    """The population's cost is that at the threshold that has 90 % recall in the population."""

    def draw(rng: np.random.Generator) -> Sample:
        positives, clean = rng.normal(size=known) + apart, rng.normal(size=100)
        fitted_on_validation = threshold(positives)
        assert fitted_on_validation is not None
        value, ends = (
            rate(clean, fitted_on_validation),
            rate_interval(clean, positives, fitted_on_validation),
        )
        assert value is not None
        assert ends is not None
        return value, ends

    assert covered(draw, float(norm.sf(apart + norm.ppf(0.1))), 100) >= 0.93


def test_too_few_positive_rows_leave_no_bound_on_the_threshold() -> None:
    rng = np.random.default_rng(1)
    clean = rng.random(100)
    for known in (LEAST_POSITIVES - 1, LEAST_POSITIVES):
        found = rate_interval(clean, rng.random(known), 0.5)
        assert (found is None) == (known < LEAST_POSITIVES)
    assert 0.9**LEAST_POSITIVES < 0.025 <= 0.9 ** (LEAST_POSITIVES - 1)


@pytest.mark.parametrize("together", [0.0, 0.6, 1.0])
def test_a_share_of_rewritings_is_covered_however_much_they_go_together(together: float) -> None:
    def draw(rng: np.random.Generator) -> Sample:
        rows = rng.normal(size=(40, 1)) * together**0.5
        looks = rows + rng.normal(size=(40, 4)) * (1 - together) ** 0.5
        hits = (looks.ravel() < norm.ppf(0.8)).astype(np.float64)
        rows_worth = effective_rows(hits, np.repeat(np.arange(40), 4))
        return float(hits.mean()), wilson(float(hits.mean()), rows_worth)

    assert 0.91 <= covered(draw, 0.8, 300) <= 0.99


def test_rewritings_that_are_alike_are_worth_one_row_each() -> None:
    hits = np.repeat([1.0, 0.0, 1.0, 1.0], 3)
    assert effective_rows(hits, None) == 12
    assert effective_rows(hits, np.repeat(np.arange(4), 3)) <= 4
    assert effective_rows(np.ones(12), np.repeat(np.arange(4), 3)) == pytest.approx(4)


def test_intervals_of_shares_means_and_differences_by_hand() -> None:
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    ends = [(0.4, 0.7), (0.2, 0.8)]
    low, high = of_mean([0.5, 0.6], ends)
    assert (low, high) == pytest.approx(
        (0.55 - np.hypot(0.1, 0.4) / 2, 0.55 + np.hypot(0.2, 0.2) / 2)
    )
    assert of_mean([0.5, 0.6], ends, dependent=True) == pytest.approx((0.3, 0.75))
    apart = of_difference(0.5, ends[0], 0.6, ends[1])
    assert apart == pytest.approx((-0.1 - np.hypot(0.1, 0.2), -0.1 + np.hypot(0.2, 0.4)))
    same = of_difference(0.5, (0.4, 0.6), 0.5, (0.4, 0.6), 1.0)
    assert same == pytest.approx((0.0, 0.0))
    assert correlation(np.array([1.0, 2.0, np.nan]), np.array([2.0, 4.0, 1.0])) == pytest.approx(1)
    assert correlation(np.ones(5), np.arange(5.0)) == 0.0


def test_equal_models_are_told_apart_about_as_often_as_the_level_says() -> None:
    """What counts is told by thresholds that each of the two has settled for itself."""
    names = ("false_positive_cost", "safety", "auroc", "calibration", "accuracy", "eval_loss")
    found = simulation.simulated(simulation.World(0.5, 1.8), 100, 40, 41, names)
    for name, counted in found.items():
        assert counted.compared == 40, name
        assert counted.alarms / 40 <= 0.125, name
        assert counted.held / 40 >= 0.875, name
        assert counted.outside == 0, name


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_every_figure_lies_within_its_interval_or_has_a_reason_for_none(
    count: int, classes: int
) -> None:
    """Also where a model is always right, always wrong, or says the same of every row."""
    rng = np.random.default_rng([count, classes])
    labels = rng.integers(classes, size=count)
    right = np.eye(classes)[labels]
    even = np.full((count, classes), 1 / classes)
    for scores in (right, np.roll(right, 1, axis=1), even, rng.dirichlet(np.ones(classes), count)):
        attacked = rng.dirichlet(np.ones(classes), 6)
        rows = RowScores(
            scores,
            labels,
            groups=rng.integers(2, size=count),
            withstood=flagged(attacked),
            attacked=suspicion(attacked),
            sources=np.arange(6) // 2,
        )
        for name, found in intervals({"": fitted_on_validation(rows, rows)}, 1, 30).items():
            if found.low is None:
                assert found.value is None or found.remark, name
            else:
                assert found.low <= found.value <= found.high, name


def test_models_that_differ_are_told_apart() -> None:
    rng = np.random.default_rng(5)
    world = simulation.World(0.5, 1.8)
    rows = simulation.rows_of(world, 400, rng)
    good = simulation.said_by_a_model(simulation.World(0.5, 3.0), rows, rng)
    poor = simulation.said_by_a_model(simulation.World(0.5, 1.0), rows, rng)
    drawn = drawn_figures({"good": {"": good}, "poor": {"": poor}}, 1, 300)
    own = [intervals({"": said}, 1, 300) for said in (good, poor)]
    for name in ("auroc", "accuracy", "false_positive_cost"):
        moves = drawn["good"][name], drawn["poor"][name]
        ends = difference_interval(name, own[0][name], own[1][name], moves)
        assert ends is not None
        assert ends[1] < 0 if name == "false_positive_cost" else ends[0] > 0, name
