"""Standard errors of figures: they match how much the figures vary from sample to sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from coralx.metrics.compute import figures
from coralx.metrics.row_scores import RowScores
from coralx.metrics.standard_errors import standard_errors


def classifier_rows(rng: np.random.Generator, rows: int = 300) -> RowScores:
    labels = (np.arange(rows) < rows // 3).astype(np.int64)
    positive = 1.0 / (1.0 + np.exp(-(0.6 * (2 * labels - 1) + rng.standard_normal(rows))))
    return RowScores(np.column_stack([1 - positive, positive]), labels)


def language_rows(rng: np.random.Generator, rows: int = 200) -> RowScores:
    tokens = rng.integers(1, 30, rows)
    return RowScores(np.column_stack([tokens * rng.gamma(4.0, 0.25, rows), tokens]))


@pytest.mark.parametrize(
    ("draw", "names"),
    [
        (classifier_rows, ("auroc", "accuracy", "eval_loss")),
        (language_rows, ("eval_loss", "perplexity")),
    ],
)
def test_they_are_the_spread_of_the_figure_over_samples(
    draw: Callable[[np.random.Generator], RowScores], names: Sequence[str]
) -> None:
    samples = [{"": draw(np.random.default_rng(seed))} for seed in range(50)]
    for name in names:
        values = [figures(sample)[name] or 0.0 for sample in samples]
        spread = float(np.std(values, ddof=1))
        typical = float(np.mean([standard_errors(s)[f"{name}_standard_error"] for s in samples]))
        assert typical == pytest.approx(spread, rel=0.3), name


def test_that_of_a_mean_over_tasks_is_made_of_theirs() -> None:
    tasks = {name: classifier_rows(np.random.default_rng(place)) for place, name in enumerate("ab")}
    found = standard_errors(tasks)
    own = [found[f"auroc_standard_error@{task}"] for task in "ab"]
    assert own == [standard_errors({"": rows})["auroc_standard_error"] for rows in tasks.values()]
    assert found["auroc_standard_error"] == pytest.approx(math.hypot(*own) / 2)
    assert found["task_skill_standard_error"] == found["auroc_standard_error"]


def test_perplexity_over_language_tasks_is_that_of_all_examples() -> None:
    tasks = {n: language_rows(np.random.default_rng(place)) for place, n in enumerate("ab")}
    together = RowScores(np.concatenate([rows.scores for rows in tasks.values()]))
    expected = standard_errors({"": together})["perplexity_standard_error"]
    assert standard_errors(tasks)["perplexity_standard_error"] == expected


def test_what_has_none_is_left_out() -> None:
    """Too few rows of a class for the AUROC's; scores that are no numbers."""
    few = RowScores(np.tile([0.4, 0.6], (12, 1)), np.array([1] * 9 + [0] * 3))
    assert "auroc_standard_error" not in standard_errors({"": few})
    assert "accuracy_standard_error" in standard_errors({"": few})
    broken = RowScores(np.full((12, 2), np.nan), few.labels)
    assert standard_errors({"": broken}) == {}
