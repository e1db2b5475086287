"""The paired bootstrap: against scikit-learn row by row, against SciPy, and what must always hold;
and the files that keep the scores it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coralx.errors import DamagedRunError
from coralx.metrics import language_model as language
from coralx.metrics.bootstrap import (
    RESAMPLES,
    drawn_figures,
    percentile_interval,
)
from coralx.metrics.compute import fitted_on_validation, task_figures
from coralx.metrics.intervals import intervals
from coralx.metrics.paired_differences import difference_interval
from coralx.metrics.resampled_figures import Resampled
from coralx.metrics.row_scores import RowScores, read_scores, scores_are_intact, write_scores
from coralx.rng import generator


def classifier(rows: int, classes: int, seed: int, skill: float = 0.4) -> RowScores:
    """Some model's probabilities; the labels depend on rows and classes alone."""
    labels = np.random.default_rng([rows, classes]).integers(classes, size=rows)
    rng = np.random.default_rng(seed)
    scores = rng.random((rows, classes)).round(2) + 0.01  # rounded, so that ties occur
    scores[np.arange(rows), labels] += skill
    rows_scores = RowScores(scores / scores.sum(axis=1, keepdims=True), labels)
    return fitted_on_validation(rows_scores, rows_scores)


def language_model(rows: int, seed: int) -> RowScores:
    counts = np.random.default_rng(rows).integers(1, 31, size=rows)
    losses = counts * np.random.default_rng(seed).random(rows)
    return RowScores(np.column_stack([losses, counts]).astype(np.float64))


NAMES = tuple(task_figures(classifier(9, 2, 0)))
SETTLED_ANEW = ("false_positive_cost",)
"""Told by a threshold that each resample settles on validation rows of its own."""


def drawn_of(
    models: Mapping[str, RowScores], seed: int, resamples: int = RESAMPLES
) -> dict[str, dict[str, Resampled]]:
    """The drawn figures of models that were given one task without a name."""
    return drawn_figures({name: {"": rows} for name, rows in models.items()}, seed, resamples)


models = st.one_of(
    st.builds(classifier, st.just(23), st.just(2), st.integers(0, 99)),
    st.builds(classifier, st.just(23), st.just(3), st.integers(0, 99)),
    st.builds(language_model, st.just(23), st.integers(0, 99)),
)


@settings(max_examples=40, deadline=None)
@given(models, st.integers(0, 9))
def test_a_model_does_not_differ_from_itself(model: RowScores, seed: int) -> None:
    drawn = drawn_of({"a": model, "b": model}, seed, 60)
    own = intervals({"": model}, seed, 60)
    for name in drawn["a"]:
        assert percentile_interval(drawn["a"][name] - drawn["b"][name]) == (0.0, 0.0)
        ends = difference_interval(name, own[name], own[name], (drawn["a"][name],) * 2)
        assert (ends is None) == (own[name].low is None)
        if ends is not None:
            assert ends[0] <= 1e-12 and ends[1] >= -1e-12  # noqa: PT018


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 3), st.integers(0, 99), st.integers(0, 99), st.integers(0, 9))
def test_the_difference_the_other_way_round_is_its_negative(
    classes: int, first: int, second: int, seed: int
) -> None:
    pair = {"a": classifier(31, classes, first), "b": classifier(31, classes, second)}
    drawn = drawn_of(pair, seed, 80)
    own = {name: intervals({"": rows}, seed, 80) for name, rows in pair.items()}
    for name in NAMES:
        ours, theirs = own["a"][name], own["b"][name]
        moves = drawn["a"][name], drawn["b"][name]
        one = difference_interval(name, ours, theirs, moves)
        other = difference_interval(name, theirs, ours, moves[::-1])
        if one is None:
            assert other is None
        else:
            assert other == pytest.approx((-one[1], -one[0]), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_differences_are_those_of_rows_drawn_one_by_one(classes: int) -> None:
    """Brute force: every resample's rows given to scikit-learn, for both models."""
    rows, resamples = 40, 120
    pair = {"a": classifier(rows, classes, 1), "b": classifier(rows, classes, 2, skill=0.2)}
    drawn = drawn_of(pair, 5, resamples)
    counts = generator(5, "bootstrap").multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    slow: dict[str, list[float]] = {name: [] for name in NAMES if name not in SETTLED_ANEW}
    for times in counts:
        chosen = np.repeat(np.arange(rows), times)
        one, other = (
            task_figures(replace(m, scores=m.scores[chosen], labels=m.labels[chosen]))  # type: ignore[index]
            for m in pair.values()
        )
        for name in slow:
            ours, theirs = one[name], other[name]
            slow[name].append(np.nan if ours is None or theirs is None else ours - theirs)
    for name in slow:
        expected = np.nanpercentile(slow[name], [2.5, 97.5])
        found = percentile_interval(drawn["a"][name] - drawn["b"][name])
        assert found == pytest.approx(tuple(expected), abs=1e-12), name


def test_differences_of_language_models_are_those_of_examples_drawn_one_by_one() -> None:
    rows, resamples = 30, 100
    pair = {"a": language_model(rows, 1), "b": language_model(rows, 2)}
    drawn = drawn_of(pair, 3, resamples)
    counts = generator(3, "bootstrap").multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    for name in ("eval_loss", "perplexity"):
        slow = [
            np.subtract(
                *(language.figures(np.repeat(m.scores, n, axis=0))[name] for m in pair.values())  # type: ignore[arg-type]
            )
            for n in counts
        ]
        found = percentile_interval(drawn["a"][name] - drawn["b"][name])
        assert found == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])), abs=1e-12)


def test_the_interval_is_what_scipy_finds() -> None:
    """Other draws, so equal up to the noise of some thousand of them."""
    a, other = classifier(150, 2, 1), classifier(150, 2, 2, skill=0.25)
    b = RowScores(0.6 * a.scores + 0.4 * other.scores, a.labels)  # the two often err together
    assert a.labels is not None
    right = [(m.scores.argmax(axis=1) == a.labels).astype(float) for m in (a, b)]

    def difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return x.mean(axis=axis) - y.mean(axis=axis)

    found = stats.bootstrap(
        right,
        difference,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    drawn = drawn_of({"a": a, "b": b}, 1, 20_000)
    ours = percentile_interval(drawn["a"]["accuracy"] - drawn["b"]["accuracy"])
    width = found.high - found.low
    assert ours == pytest.approx((found.low, found.high), abs=0.05 * width)
    apart = [drawn[name]["accuracy"] for name in ("a", "b")]
    unpaired = percentile_interval(apart[0] - np.random.default_rng(1).permutation(apart[1]))
    assert unpaired is not None
    assert unpaired[1] - unpaired[0] > 1.2 * width  # pairing is what narrows it


def test_a_language_models_own_interval_is_made_of_the_same_draws() -> None:
    text = language_model(50, 1)
    loss = intervals({"": text}, 4)["eval_loss"]
    drawn = drawn_of({"x": language_model(50, 2), "y": text}, 4)["y"]
    assert percentile_interval(drawn["eval_loss"]) == (loss.low, loss.high)


def test_models_that_scored_different_rows_are_refused() -> None:
    model = classifier(20, 2, 1)
    assert model.labels is not None
    for other in (
        classifier(21, 2, 1),
        RowScores(model.scores, 1 - model.labels),
        RowScores(model.scores, None),
    ):
        with pytest.raises(ValueError, match="different rows"):
            drawn_of({"a": model, "b": other}, 0, 5)
    with pytest.raises(ValueError, match="different rows"):
        drawn_of({"a": language_model(20, 1), "b": language_model(21, 1)}, 0, 5)
    assert drawn_figures({}, 0) == {}


def test_draws_without_a_figure_do_not_count() -> None:
    """Three rows, one positive: in about a third of the draws there is no AUROC."""
    model = RowScores(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 0]))
    drawn = drawn_of({"a": model}, 0, 200)["a"]["auroc"]
    assert 0 < np.isnan(drawn).sum() < 200
    assert percentile_interval(drawn) == (1.0, 1.0)
    assert percentile_interval(np.full(3, np.nan)) is None
    infinite = np.array([np.inf, 1.0, np.nan])
    assert percentile_interval(infinite) == (1.0, 1.0)


# -- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [classifier(30, 3, 1), language_model(30, 1)])
def test_scores_come_back_bit_for_bit(tmp_path: Path, rows: RowScores) -> None:
    path = tmp_path / "scores" / "g.safetensors"
    digest = write_scores(path, {"": rows})
    again = read_scores(path)[""]
    assert again.scores.dtype == np.float64
    assert np.array_equal(again.scores, rows.scores)
    if rows.labels is None:
        assert again.labels is None
    else:
        assert np.array_equal(again.labels, rows.labels)  # type: ignore[arg-type]
    assert write_scores(path, {"": rows}) == digest
    assert scores_are_intact(path, digest)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "scores" / "g.safetensors"
    digest = write_scores(path, {"": classifier(10, 2, 1)})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not scores_are_intact(path, digest)
    path.unlink()
    assert not scores_are_intact(path, digest)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all, this is text"])
def test_a_file_that_holds_no_scores_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "g.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedRunError, match=r"g\.safetensors: cannot be read"):
        read_scores(path)
