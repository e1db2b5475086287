"""Bootstrap confidence intervals of every figure that is read off predictions."""

from __future__ import annotations

from coralx.objectives.predictions import SETTLED, figures
from coralx.objectives.resampling import RESAMPLES, Drawn, drawn_figures, percentile_interval
from coralx.objectives.scores import Said
from coralx.results import Interval


def intervals(said: Said, seed: int, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """All figures of a run with 95 % percentile intervals; rows are drawn with replacement, a
    language model's as whole examples."""
    values = {
        name: value
        for name, value in figures(said).items()
        if not name.startswith(tuple(SETTLED.values()))
    }
    if not all(rows.is_finite for rows in said.values()):
        return {name: Interval(None, None, None) for name in values}
    drawn = drawn_figures({"it": said}, seed, resamples)["it"]
    return {name: _interval(value, drawn[name]) for name, value in values.items()}


def _interval(value: float | None, drawn: Drawn) -> Interval:
    found = percentile_interval(drawn)
    if value is None or found is None:
        return Interval(value, None, None)
    return Interval(value, *found)
