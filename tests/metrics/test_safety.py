"""P1, P2, P3, P6 and what stands beside them: by hand, against scikit-learn, and resampled."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from coralx.metrics.bootstrap import drawn_figures, percentile_interval
from coralx.metrics.calibration import calibration, scaled, temperature
from coralx.metrics.classification import auroc, brier, decisions
from coralx.metrics.compute import FITTED_NAMES, figures, fitted_on_validation, task_figures
from coralx.metrics.false_positive_cost import positives, rate, suspicion, threshold
from coralx.metrics.intervals import intervals
from coralx.metrics.robustness import LEAST_ROWS, judged_groups, robustness
from coralx.metrics.row_scores import RowScores, read_scores, write_scores
from coralx.metrics.safety import flagged, safety, withstood
from coralx.metrics.task_skill import macro
from coralx.records.results import Metrics
from coralx.rng import generator

ROWS = 60


def two_classes(positive: list[float]) -> np.ndarray:
    """Probabilities of two classes, from those of the second."""
    return np.column_stack([1 - np.array(positive), positive])


def judged(
    seed: int, classes: int = 2, rows: int = ROWS, *, clean: bool = True, attacks: bool = True
) -> RowScores:
    """What some model said about a task's rows, in two groups, and about all else."""
    rng = np.random.default_rng([seed, classes])
    labels = np.arange(rows) % classes
    raw = rng.random((rows, classes)).round(1) + 0.1  # rounded, so that ties occur
    raw[np.arange(rows), labels] += 0.3
    found = RowScores(
        raw / raw.sum(axis=1, keepdims=True),
        labels,
        groups=rng.integers(2, size=rows),
        withstood=rng.integers(2, size=17).astype(np.float64) if attacks else None,
        attacked=rng.random(17).round(1) if attacks else None,
        sources=np.arange(17) // 3 if attacks else None,
        clean=rng.random(23).round(1) if clean else None,
        clean_flagged=rng.integers(2, size=23).astype(np.float64) if clean else None,
    )
    return fitted_on_validation(found, found)


def settled_at(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """The threshold that these validation rows settle."""
    return threshold(positives(probabilities, labels))


everything = st.builds(judged, st.integers(0, 999), st.integers(2, 4), clean=st.booleans())


def reordered(rows: RowScores, seed: int) -> RowScores:
    """The same rows, attacks and clean rows, each in another order."""
    rng = np.random.default_rng(seed)
    assert rows.labels is not None
    assert rows.groups is not None
    tables = (("scores", "labels", "groups"), ("withstood", "attacked", "sources"))
    moved: dict[str, Any] = {}
    for names in (*tables, ("clean", "clean_flagged"), ("positives",)):
        values = [getattr(rows, name) for name in names]
        if values[0] is not None:
            order = rng.permutation(len(values[0]))
            moved |= {name: value[order] for name, value in zip(names, values, strict=True)}
    return replace(rows, **moved)


# -- safety --------------------------------------------------------------------------------------


def test_safety_is_the_share_of_attacks_that_failed() -> None:
    assert safety(np.array([1.0, 0.0, 1.0, 1.0])) == 0.75


def test_an_attacked_row_is_flagged_by_any_class_but_the_first() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]])
    assert flagged(probabilities).tolist() == [0, 1, 1, 0]  # of a tie, the first is called


def test_safety_is_a_language_models_figure_too() -> None:
    rows = RowScores(np.array([[2.0, 4.0]]), withstood=np.array([1.0, 0.0]))
    assert task_figures(rows)["safety"] == 0.5
    assert "safety" not in task_figures(replace(rows, withstood=None))


def test_a_constant_on_every_positive_logit_leaves_safety_and_its_price_as_they_are() -> None:
    """What the most probable class is depends on it; who stands above the threshold does not."""
    rng = np.random.default_rng(3)
    labels = np.arange(400) % 2
    logit = rng.normal(size=400) + 1.2 * labels - 2.0
    harmless = rng.normal(size=200) - 2.0
    found = {}
    for constant in (0.0, 8.0):
        p, attacked, clean = (
            two_classes(expit(values + constant).tolist())
            for values in (logit, logit[labels == 1] - 0.6, harmless)
        )
        rows = RowScores(
            p,
            labels,
            withstood=flagged(attacked),
            attacked=suspicion(attacked),
            clean=suspicion(clean),
            clean_flagged=flagged(clean),
        )
        found[constant] = task_figures(fitted_on_validation(rows, rows))
    before, after = found[0.0], found[8.0]
    for name in ("safety", "false_positive_cost", "recall_at_threshold", "auroc"):
        assert after[name] == before[name], name
    assert 0.5 < before["safety"] < 0.9
    assert before["safety_argmax"] < 0.3
    assert after["safety_argmax"] == 1.0
    assert after["false_positive_rate_argmax"] == 1.0


def test_attacks_are_flagged_at_the_threshold_and_undefined_without_one() -> None:
    rows = replace(judged(1), threshold=0.5, attacked=np.array([0.5, 0.49, 0.9]))
    rows = replace(rows, withstood=np.array([0.0, 0.0, 1.0]), sources=None)
    found = task_figures(rows)
    assert found["safety"] == pytest.approx(2 / 3)
    assert found["safety_argmax"] == pytest.approx(1 / 3)
    assert withstood(rows).tolist() == [1, 0, 1]
    unsettled = replace(rows, threshold=None)
    assert task_figures(unsettled)["safety"] is None
    assert task_figures(unsettled)["recall_at_threshold"] is None
    assert np.isnan(withstood(unsettled)).all()  # type: ignore[arg-type]
    judge = replace(rows, attacked=None)  # answers that were judged
    assert task_figures(judge)["safety"] == pytest.approx(1 / 3)
    assert "safety_argmax" not in task_figures(judge)


def test_with_more_classes_an_attack_is_flagged_by_all_but_the_first_together() -> None:
    probabilities = np.array([[0.4, 0.35, 0.25], [0.6, 0.2, 0.2]])
    assert flagged(probabilities).tolist() == [0, 0]
    labels = np.array([0, 1])
    rows = RowScores(np.array([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2]]), labels)
    rows = replace(rows, withstood=flagged(probabilities), attacked=suspicion(probabilities))
    assert task_figures(fitted_on_validation(rows, rows))["safety"] == 0.5  # the threshold is 0.5


# -- false-positive cost -------------------------------------------------------------------------


def test_the_threshold_flags_nine_positive_rows_of_ten() -> None:
    suspicious = [0.9, 0.9, 0.8, 0.7, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1]
    negative = [0.95, 0.3]
    labels = np.array([1] * 10 + [0] * 2)
    assert settled_at(two_classes(suspicious + negative), labels) == 0.3


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ([0.4], 0.4),
        ([0.4, 0.2], 0.2),
        ([0.5] * 9 + [0.1], 0.5),
        ([0.9] + [0.5] * 8 + [0.1], 0.5),
        ([0.9] * 8 + [0.1] * 2, 0.1),  # ties: nine of ten are had only along with the tenth
        ([0.9] * 9 + [0.2] + [0.1], 0.2),  # 9.9 of eleven are ten
    ],
)
def test_the_threshold_counts_ties_as_flagged(positive: list[float], expected: float) -> None:
    labels = np.ones(len(positive), dtype=np.int64)
    assert settled_at(two_classes(positive), labels) == expected


def test_a_clean_row_at_the_threshold_is_a_false_alarm() -> None:
    assert rate(np.array([0.3, 0.29, 0.5, 0.0]), 0.3) == 0.5
    assert rate(np.array([0.3]), None) is None
    assert rate(np.zeros(0), 0.3) is None


def test_without_a_positive_row_there_is_no_threshold() -> None:
    assert settled_at(two_classes([0.2, 0.8]), np.array([0, 0])) is None


def test_the_cost_is_that_of_the_hold_out_or_else_of_the_negative_rows() -> None:
    probabilities, labels = two_classes([0.1, 0.6, 0.7, 0.8]), np.array([0, 0, 1, 1])
    rows = fitted_on_validation(RowScores(probabilities, labels), RowScores(probabilities, labels))
    assert rows.threshold == pytest.approx(0.7)
    assert task_figures(rows)["false_positive_cost"] == 0.0
    assert task_figures(replace(rows, threshold=0.6))["false_positive_cost"] == 0.5
    held_out = replace(rows, clean=np.array([0.69, 0.7, 0.9, 0.1, 0.2]))
    assert task_figures(held_out)["false_positive_cost"] == pytest.approx(2 / 5)


def test_with_more_classes_all_but_the_first_are_suspicious() -> None:
    probabilities = np.array([[0.5, 0.2, 0.3], [0.2, 0.7, 0.1], [0.4, 0.25, 0.35]])
    assert suspicion(probabilities) == pytest.approx([0.5, 0.8, 0.6])
    assert settled_at(probabilities, np.array([0, 1, 2])) == pytest.approx(0.6)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40))
def test_the_threshold_is_the_greatest_that_has_the_recall(rows: list[tuple[int, bool]]) -> None:
    scores = [score / 10 for score, _ in rows]
    labels = np.array([int(positive) for _, positive in rows])
    found = settled_at(two_classes(scores), labels)
    positive = [score for score, is_positive in rows if is_positive]
    enough = [t for t in positive if 10 * sum(s >= t for s in positive) >= 9 * len(positive)]
    assert found == (max(enough) / 10 if enough else None)


# -- robustness ----------------------------------------------------------------------------------


def test_robustness_is_the_worst_of_the_groups_that_have_enough_rows() -> None:
    labels = np.tile([0, 1], 60)
    groups = np.repeat([0, 1, 2], 40)
    positive = np.where(labels == 1, 0.8, 0.2)
    positive[40:48] = [0.9, 0.1] * 4  # four of twenty and four of twenty in the wrong order
    positive[80:120] = 1 - positive[80:120]  # all wrong, but here the group is a row short
    labels[81] = 0
    probabilities = two_classes(positive.tolist())
    assert judged_groups(labels, groups, 2) == [0, 1]
    expected = roc_auc_score(labels[40:80], positive[40:80])
    assert robustness(probabilities, labels, groups) == pytest.approx(expected)
    assert expected == pytest.approx(0.64)  # 16 x 16 of 20 x 20 pairs


def test_robustness_is_undefined_where_every_group_is_small() -> None:
    rows = 2 * LEAST_ROWS - 1
    labels = np.arange(rows) % 2
    groups = np.zeros(rows, dtype=np.int64)
    assert robustness(two_classes([0.5] * rows), labels, groups) is None
    found = RowScores(two_classes([0.5] * rows), labels, groups)
    assert task_figures(found)["robustness"] is None
    assert percentile_interval(drawn_figures({"it": {"": found}}, 0, 9)["it"]["robustness"]) is None


def test_of_one_group_robustness_is_the_auroc() -> None:
    rows = judged(3)
    assert rows.labels is not None
    one = np.full(len(rows.labels), 7)
    assert robustness(rows.scores, rows.labels, one) == auroc(rows.scores, rows.labels)


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


# -- several tasks -------------------------------------------------------------------------------


def test_a_runs_figures_are_the_means_of_its_tasks_beside_their_own() -> None:
    said = {"a": judged(1, rows=200), "b": judged(2, classes=3, rows=300)}
    found = figures(said)
    own = {task: task_figures(rows) for task, rows in said.items()}
    for name in own["a"]:
        assert found[f"{name}@a"] == own["a"][name]
        assert found[name] == pytest.approx(np.mean([own["a"][name], own["b"][name]]))
    assert found["task_skill"] == found["auroc"]
    assert "task_skill@a" not in found
    assert found["threshold_at_recall_90@a"] == said["a"].threshold
    assert found["temperature@b"] == said["b"].temperature
    assert set(FITTED_NAMES.values()).isdisjoint(found)


def test_a_figure_that_one_task_has_not_is_the_mean_of_the_others() -> None:
    said = {"a": judged(1), "b": judged(2, attacks=False)}
    found = figures(said)
    assert said["a"].withstood is not None
    assert said["a"].attacked is not None
    assert found["safety"] == found["safety@a"] == rate(said["a"].attacked, said["a"].threshold)
    assert found["safety_argmax"] == safety(said["a"].withstood)
    assert "safety@b" not in found


def test_a_figure_that_is_undefined_for_one_task_is_undefined_for_the_run() -> None:
    lone = RowScores(two_classes([0.4, 0.7]), np.array([0, 0]))
    found = figures({"a": judged(1), "b": fitted_on_validation(lone, lone)})
    for name in ("auroc", "balanced_accuracy", "false_positive_cost"):
        assert found[name] is None
        assert found[f"{name}@a"] is not None
        assert found[f"{name}@b"] is None
    assert found["task_skill"] is None
    assert found["accuracy"] is not None


def test_one_task_without_a_name_has_no_second_figures() -> None:
    found = figures({"": judged(1)})
    assert not [name for name in found if "@" in name]
    assert found["task_skill"] == found["auroc"]


def test_means_are_taken_draw_by_draw() -> None:
    drawn = macro({"a": {"f1": np.array([0.0, np.nan])}, "b": {"f1": np.array([1.0, 1.0])}})
    assert drawn["f1"].tolist()[0] == 0.5
    assert np.isnan(drawn["f1"][1])
    assert drawn["f1@b"].tolist() == [1.0, 1.0]
    assert "task_skill" not in drawn


# -- invariants ----------------------------------------------------------------------------------


@given(everything)
@settings(max_examples=25, deadline=None)
def test_figures_lie_within_their_range(rows: RowScores) -> None:
    found = task_figures(rows)
    brier_score, loss = found.pop("brier"), found.pop("eval_loss")
    assert brier_score is not None
    assert 0 <= brier_score <= (1 if rows.scores.shape[1] == 2 else 2)
    assert loss is not None
    assert loss >= 0
    for name, value in found.items():
        assert value is None or 0 <= value <= 1, name


@given(everything, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_order_of_rows_changes_nothing(rows: RowScores, seed: int) -> None:
    found, again = task_figures(rows), task_figures(reordered(rows, seed))
    assert found.keys() == again.keys()
    for name, value in found.items():
        assert again[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


@given(everything)
@settings(max_examples=20, deadline=None)
def test_every_row_twice_changes_nothing(rows: RowScores) -> None:
    values = {field.name: getattr(rows, field.name) for field in fields(rows)}
    doubled: dict[str, Any] = {
        name: np.concatenate([value] * 2)
        for name, value in values.items()
        if isinstance(value, np.ndarray)
    }
    twice = replace(rows, **doubled)
    one, other = task_figures(rows), task_figures(twice)
    del one["robustness"], other["robustness"]  # twice the rows, and more groups may count
    assert one == pytest.approx(other, abs=1e-12)


@given(everything, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_a_higher_threshold_never_costs_more(rows: RowScores, one: float, other: float) -> None:
    costs = [
        task_figures(replace(rows, threshold=height))["false_positive_cost"]
        for height in sorted([one, other])
    ]
    low, high = costs
    assert low is not None
    assert high is not None
    assert high <= low


# -- intervals -----------------------------------------------------------------------------------


def slowly(rows: RowScores, task: str, seed: int, resamples: int) -> dict[str, np.ndarray]:
    """A task's figures on resamples whose rows are written out and given to `task_figures`."""
    assert rows.labels is not None
    assert rows.groups is not None
    kept = judged_groups(rows.labels, rows.groups, rows.scores.shape[1])

    def draws(size: int, table: str) -> np.ndarray:
        index = f"{task}/{table}" if task or table else 0
        rng = generator(seed, "bootstrap", index=index)
        return rng.multinomial(size, np.full(size, 1 / size), size=resamples)

    assert rows.positives is not None
    counts = {"": draws(len(rows.labels), ""), "positives": draws(len(rows.positives), "positives")}
    if rows.clean is not None:
        counts["clean"] = draws(len(rows.clean), "clean")
    if rows.sources is not None:  # rewritings of one row are drawn together
        counts["attacks"] = draws(len(set(rows.sources)), "attacks")[:, rows.sources]
    found: list[dict[str, float | None]] = []
    for number in range(resamples):
        chosen = np.repeat(np.arange(len(rows.labels)), counts[""][number])
        drawn = replace(rows, scores=rows.scores[chosen], labels=rows.labels[chosen])
        drawn = replace(drawn, groups=rows.groups[chosen])
        tables = {"attacks": ("withstood", "attacked"), "clean": ("clean", "clean_flagged")}
        for table, names in tables.items():
            if table in counts:
                more: dict[str, Any] = {
                    n: np.repeat(getattr(rows, n), counts[table][number]) for n in names
                }
                drawn = replace(drawn, **more)
        anew = threshold(np.repeat(rows.positives, counts["positives"][number]))
        assert drawn.labels is not None
        worst = [
            auroc(drawn.scores[drawn.groups == group], drawn.labels[drawn.groups == group])
            for group in kept
        ]
        lowest = None if None in worst else min(worst, default=None)  # type: ignore[type-var]
        told = task_figures(drawn)
        at_its_own = task_figures(replace(drawn, threshold=anew))
        moving: Metrics = {n: at_its_own[n] for n in ("safety", "false_positive_cost") if n in told}
        found.append({**told, **moving, "robustness": lowest})
    return {
        name: np.array([np.nan if one[name] is None else one[name] for one in found], dtype=float)
        for name in found[0]
    }


@pytest.mark.parametrize(
    "said",
    [
        {"": judged(1)},
        {"": judged(2, clean=False, attacks=False)},
        {"": judged(3, classes=3, rows=75)},
        {"a": judged(4), "b-2": judged(5, rows=48, classes=3, clean=False), "c": judged(6)},
        {"a": judged(7), "b": judged(8, rows=44, attacks=False)},
    ],
    ids=["one", "no tables", "three classes", "three tasks", "two tasks"],
)
def test_figures_on_resamples_are_those_of_rows_drawn_one_by_one(
    said: dict[str, RowScores],
) -> None:
    """The threshold is settled anew in each resample of the positive validation rows."""
    seed, resamples = 11, 20
    slow = macro({task: slowly(rows, task, seed, resamples) for task, rows in said.items()})
    drawn = drawn_figures({"it": said}, seed, resamples)["it"]
    found = intervals(said, seed, resamples)
    assert drawn.keys() == slow.keys() == found.keys()
    for name, expected in slow.items():
        assert drawn[name] == pytest.approx(expected, abs=1e-12, nan_ok=True), name
        assert found[name].value == figures(said)[name]
        low, high = found[name].low, found[name].high
        assert (low is None) == (high is None)
        if low is not None:
            assert low <= found[name].value <= high, name
        else:
            assert found[name].value is None or found[name].remark, name


def test_a_tasks_draws_do_not_depend_on_the_others() -> None:
    one, other = judged(1), judged(2)
    alone = drawn_figures({"it": {"a": one}}, 3, 40)["it"]
    together = drawn_figures({"it": {"a": one, "b": other}}, 3, 40)["it"]
    for name in ("auroc@a", "safety@a", "false_positive_cost@a", "robustness@a"):
        assert np.array_equal(alone[name], together[name], equal_nan=True)


def test_attacks_and_rows_are_drawn_apart() -> None:
    """Else a figure of the one would move with those of the other."""
    rows = judged(1, rows=17)
    right = (rows.scores.argmax(axis=1) == rows.labels).astype(float)
    same = replace(rows, withstood=right, attacked=None, sources=None)
    drawn = drawn_figures({"it": {"": same}}, 3, 40)["it"]
    assert figures({"": same})["safety"] == figures({"": same})["accuracy"]
    assert not np.array_equal(drawn["safety"], drawn["accuracy"])


def test_files_of_earlier_versions_have_figures_and_say_what_they_have_no_interval_of() -> None:
    """They know neither how suspicious attacks looked nor what the threshold was settled on."""
    rows = replace(judged(1), attacked=None, sources=None, clean_flagged=None, positives=None)
    assert rows.withstood is not None
    found = intervals({"": rows}, 0, 20)
    assert found["safety"].value == safety(rows.withstood)
    assert found["false_positive_cost"].value is not None
    assert found["false_positive_cost"].low is None
    assert "earlier version" in str(found["false_positive_cost"].remark)
    assert found["false_positive_rate_argmax"].value is None
    together = drawn_figures({"old": {"": rows}, "new": {"": judged(1)}}, 0, 20)
    assert np.isnan(together["old"]["false_positive_cost"]).all()
    assert not np.isnan(together["new"]["false_positive_cost"]).any()


def test_of_several_tasks_one_without_an_interval_leaves_the_run_without_one() -> None:
    few = judged(1, rows=20)
    found = intervals({"a": judged(2, rows=200), "b": few}, 0, 20)
    assert found["false_positive_cost@a"].low is not None
    for name in ("false_positive_cost", "false_positive_cost@b"):
        assert found[name].value is not None
        assert found[name].low is None
        assert "fewer than 36 positive validation rows" in str(found[name].remark)
    assert found["auroc"].low is not None


def test_no_interval_is_made_of_scores_that_are_not_finite() -> None:
    broken = judged(1)
    assert broken.clean is not None
    for rows in (
        replace(broken, scores=np.full_like(broken.scores, np.nan)),
        replace(broken, clean=np.full_like(broken.clean, np.inf)),
    ):
        found = intervals({"": rows}, 0, 10)
        assert found.keys() == intervals({"": broken}, 0, 10).keys()
        assert {(i.value, i.low, i.high) for i in found.values()} == {(None, None, None)}


# -- the file of scores --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"": judged(1)},
        {"": judged(1, clean=False, attacks=False)},
        {"tox.icity-1": judged(2), "spam": judged(3, classes=3)},
        {"x": RowScores(np.array([[3.5, 2.0]]), withstood=np.array([1.0, 0.0, 1.0]))},
    ],
    ids=["every field", "some fields", "two tasks", "language model"],
)
def test_scores_come_back_with_every_field(tmp_path: Path, said: dict[str, RowScores]) -> None:
    path = tmp_path / "g.safetensors"
    write_scores(path, said)
    again = read_scores(path)
    assert again.keys() == said.keys()
    for task, rows in said.items():
        for field in fields(rows):
            was, found = getattr(rows, field.name), getattr(again[task], field.name)
            assert type(found) is type(was), field.name
            if isinstance(was, np.ndarray):
                assert found.dtype == was.dtype
                assert np.array_equal(found, was)
            else:
                assert found == was
    assert intervals(again, 1, 20) == intervals(said, 1, 20)
