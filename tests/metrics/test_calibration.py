"""Calibration, the Brier score and balanced accuracy, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from coralx.metrics.calibration import calibration, scaled, temperature
from coralx.metrics.classification import brier, decisions
from coralx.metrics.compute import fitted_on_validation, task_figures
from coralx.metrics.row_scores import RowScores
from tests.support.judged_rows import judged, two_classes

# -- calibration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_recovered(heat: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=1.5, size=(6000, 3))
    truth = softmax(logits, axis=1)
    labels = (truth.cumsum(axis=1) < rng.random((len(truth), 1))).sum(axis=1)
    assert temperature(softmax(logits * heat, axis=1), labels) == pytest.approx(heat, rel=0.06)


def test_scaling_a_model_that_is_too_sure_lowers_its_calibration_error() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4000, 2))
    labels = (softmax(logits, axis=1)[:, 1] > rng.random(4000)).astype(np.int64)
    sure = softmax(4 * logits, axis=1)
    rows = fitted_on_validation(RowScores(sure, labels), RowScores(sure, labels))
    found = task_figures(rows)
    assert found["calibration"] == pytest.approx(calibration(sure, labels))
    assert found["calibration"] > 0.15
    assert found["calibration_scaled"] < 0.03


@given(st.integers(0, 999), st.integers(2, 5), st.floats(0.1, 10.0))
@settings(deadline=None)
def test_scaled_probabilities_are_those_of_the_logits_divided(
    seed: int, classes: int, heat: float
) -> None:
    logits = np.random.default_rng(seed).normal(size=(20, classes))
    found = scaled(softmax(logits, axis=1), heat)
    assert found == pytest.approx(softmax(logits / heat, axis=1), abs=1e-9)
    assert found.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(found.argmax(axis=1), logits.argmax(axis=1))


def test_temperature_stays_within_bounds_where_every_row_is_right_or_all_are_wrong() -> None:
    right = two_classes([0.1, 0.9])
    assert 0.01 <= temperature(right, np.array([0, 1])) < 0.05
    assert 50 < temperature(right, np.array([1, 0])) <= 100
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert np.isfinite(scaled(certain, temperature(certain, np.array([0, 1])))).all()


# -- Brier score and balanced accuracy -----------------------------------------------------------


def test_brier_score_by_hand() -> None:
    assert brier(two_classes([0.8, 0.4]), np.array([1, 0])) == pytest.approx((0.04 + 0.16) / 2)
    three = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    expected = ((0.25 + 0.09 + 0.04) + (0.01 + 0.81 + 0.64)) / 2
    assert brier(three, np.array([0, 1])) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_figures_are_scikit_learns(classes: int) -> None:
    rows = judged(5, classes)
    assert rows.labels is not None
    called = rows.scores.argmax(axis=1)
    found = task_figures(rows)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(rows.labels, called))
    recalls = [(called[rows.labels == c] == c).mean() for c in range(classes)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if classes == 2:
        expected = brier_score_loss(rows.labels, rows.scores[:, 1])
        skill = roc_auc_score(rows.labels, rows.scores[:, 1])
    else:
        truth = np.eye(classes)[rows.labels]
        expected = ((rows.scores - truth) ** 2).sum(axis=1).mean()
        skill = np.mean(
            [roc_auc_score(rows.labels == c, rows.scores[:, c]) for c in range(classes)]
        )
    assert found["brier"] == pytest.approx(expected)
    assert found["auroc"] == pytest.approx(skill)


def test_balanced_accuracy_is_undefined_where_a_class_is_missing() -> None:
    assert decisions(two_classes([0.2, 0.8]), np.array([0, 0]))["balanced_accuracy"] is None
    assert decisions(two_classes([0.2, 0.8]), np.array([0, 0]))["accuracy"] == 0.5
