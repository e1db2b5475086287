"""Bootstrap confidence intervals of every figure that is read off predictions."""

from __future__ import annotations

from collections.abc import Mapping

from coralx.objectives import language
from coralx.objectives.predictions import NAMES, figures
from coralx.objectives.resampling import RESAMPLES, Drawn, drawn_figures, percentile_interval
from coralx.objectives.scores import Labels, LanguageScores, Probabilities, RowScores
from coralx.results import Interval


def intervals(
    probabilities: Probabilities, labels: Labels, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """All figures with 95 % percentile intervals; rows are drawn with replacement."""
    values = figures(probabilities, labels)
    if values["eval_loss"] is None:
        return {name: Interval(None, None, None) for name in NAMES}
    return _intervals(values, RowScores(probabilities, labels), seed, resamples)


def language_intervals(
    scores: LanguageScores, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """A language model's figures with 95 % percentile intervals; whole examples are drawn."""
    values = language.figures(scores)
    if values["eval_loss"] is None:
        return {name: Interval(None, None, None) for name in values}
    return _intervals(values, RowScores(scores, None), seed, resamples)


def _intervals(
    values: Mapping[str, float | None], scores: RowScores, seed: int, resamples: int
) -> dict[str, Interval]:
    drawn = drawn_figures({"it": scores}, seed, resamples)["it"]
    return {name: _interval(value, drawn[name]) for name, value in values.items()}


def _interval(value: float | None, drawn: Drawn) -> Interval:
    found = percentile_interval(drawn)
    if value is None or found is None:
        return Interval(value, None, None)
    return Interval(value, *found)
