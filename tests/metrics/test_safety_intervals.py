"""Intervals of figures of safety against a plain bootstrap, and the file of scores."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coralx.metrics.bootstrap import drawn_figures
from coralx.metrics.classification import auroc
from coralx.metrics.compute import figures, task_figures
from coralx.metrics.false_positive_cost import threshold
from coralx.metrics.intervals import intervals
from coralx.metrics.robustness import judged_groups
from coralx.metrics.row_scores import RowScores, read_scores, write_scores
from coralx.metrics.safety import safety
from coralx.metrics.task_skill import macro
from coralx.records.results import Metrics
from coralx.rng import generator
from tests.support.judged_rows import judged

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
