"""Figures of predictions: against hand-computed values, and resampled against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from coralx.metrics.calibration import calibration
from coralx.metrics.compute import fitted_on_validation, task_figures
from coralx.metrics.intervals import intervals
from coralx.metrics.resampled_figures import resampled
from coralx.metrics.row_scores import RowScores


def predictions(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    scores = rng.random((rows, classes)).round(2) + 0.01  # rounded, so that ties occur
    scores[np.arange(rows), labels] += 0.4
    return scores / scores.sum(axis=1, keepdims=True), labels


def figures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    rows = RowScores(probabilities, labels)
    return task_figures(fitted_on_validation(rows, rows))


def said(rows: int) -> dict[str, RowScores]:
    found = RowScores(*predictions(rows, 2, seed=1))
    return {"": fitted_on_validation(found, found)}


NAMES = tuple(figures(*predictions(9, 2, 0)))


def test_figures_of_four_rows_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    labels = np.array([0, 0, 1, 1])
    found = figures(probabilities, labels)
    assert found["auroc"] == pytest.approx(3 / 4)  # of four pairs only (0.6, 0.2) is wrong
    assert found["accuracy"] == pytest.approx(1 / 2)
    assert found["precision"] == pytest.approx(1 / 2)
    assert found["recall"] == pytest.approx(1 / 2)
    assert found["f1"] == pytest.approx(1 / 2)
    assert found["eval_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.2]).mean())


def test_calibration_by_hand() -> None:
    # 0.95 and 0.96 share a bin: one right of two; 0.55 is alone and right.
    probabilities = np.array([[0.05, 0.95], [0.96, 0.04], [0.45, 0.55]])
    labels = np.array([1, 1, 1])
    expected = (abs(1 - (0.95 + 0.96)) + abs(1 - 0.55)) / 3
    assert calibration(probabilities, labels) == pytest.approx(expected)


def test_auroc_is_undefined_where_a_class_is_missing() -> None:
    assert figures(np.array([[0.2, 0.8]]), np.array([1]))["auroc"] is None


def test_no_figure_is_made_of_probabilities_that_are_not_finite() -> None:
    found = figures(np.array([[np.nan, np.nan], [0.5, 0.5]]), np.array([0, 1]))
    assert found == dict.fromkeys(NAMES)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_resample_has_the_figures_of_the_rows_it_drew(classes: int) -> None:
    probabilities, labels = predictions(60, classes, seed=classes)
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.integers(len(labels), size=len(labels))
        counts = np.bincount(rows, minlength=len(labels)).astype(float)[None, :]
        fast = resampled(probabilities, labels, counts, temperature=1.5)
        slow = task_figures(RowScores(probabilities[rows], labels[rows], temperature=1.5))
        for name in fast:
            assert fast[name][0] == pytest.approx(slow[name], abs=1e-12), name


def test_intervals_hold_the_figure_and_narrow_with_more_rows() -> None:
    few, many = (intervals(said(rows), seed=0) for rows in (50, 2000))
    for name in NAMES:
        assert many[name].low < many[name].value < many[name].high
        if name == "false_positive_cost":
            assert few[name].low is None
            assert "36 positive validation rows" in few[name].remark
        else:
            assert few[name].low < few[name].value < few[name].high
            assert many[name].high - many[name].low < few[name].high - few[name].low


def test_intervals_depend_on_the_seed_alone() -> None:
    data = said(50)
    assert intervals(data, seed=3) == intervals(data, seed=3)
    assert intervals(data, seed=3) != intervals(data, seed=4)
