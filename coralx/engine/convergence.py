"""Whether the search still moves: the front's hypervolume and the population's diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coralx.config import Config
from coralx.engine.state import RunState
from coralx.records.results import Metrics
from coralx.records.run_facts import Axis
from coralx.search.hypervolume_box import distances, unit_box
from coralx.search.indicators import box_of, diversity, relative_hypervolume, spacing
from coralx.search.pareto import Points, as_minimised, front, measured
from coralx.search.ranking import constraints_of, violations
from coralx.search.space import space_of
from coralx.storage.history import History

MOVED = 0.01
"""A relative change below this is none: of diversity, of a best figure, and of a hypervolume in the
box of a few finishers."""

VOLUME_MOVED = 0.002
"""The same of a hypervolume in the box of all that can be, of which even a worthwhile trade-off is
a small part: at nearly the largest size 0.05 more AUROC is some 0.5 % of a front's volume."""

LEFT_MOVED = 0.05
"""The same of the distance that a best figure leaves to the best that there can be."""


@dataclass(frozen=True)
class Indicators:
    """A generation's figures, by what was known when its survivors were chosen. Who finished and
    does not meet the constraints counts for nothing."""

    generation: int
    front: int
    """How many members the front so far has."""
    hypervolume: float | None
    """Of the front so far, as a share of the run's box (`search.hypervolume_box`; in runs of
    earlier versions of the box that the first finishers span); None before anyone counts."""
    spacing: float | None
    """How evenly the front so far lies in that box; None before anyone counts."""
    diversity: float
    """Of the surviving population."""
    best: Mapping[str, float | None]
    """The best figure so far on each objective."""


def indicators(state: RunState, newest: int | None = None) -> list[Indicators]:
    """Figures of every completed generation, or of the `newest` ones, on the validation split."""
    config, history, last_stage = state.config, state.history, state.last_stage
    space = space_of(config)
    finished = state.finished()
    figures = [history.results[genome, last_stage].metrics for genome in finished]
    points, box, counts = _placed(state, finished, figures)
    # A genome's result counts for a generation if it came before its survivors were chosen: where
    # generations overlap that is no question of the generation that the genome belongs to.
    came = {key: place for place, key in enumerate(history.results)}
    arrival = np.asarray([came[genome, last_stage] for genome in finished], dtype=np.int64)
    rows = []
    for generation, population in sorted(history.populations.items())[-(newest or 0) :]:
        known = np.flatnonzero(arrival < history.known_by[generation])
        figures_then = [figures[place] for place in known]
        is_counted = counts[known] & (violations(figures_then, constraints_of(config)) == 0)
        counted = known[is_counted]
        ids = [str(place) for place in counted]
        compared = as_minimised(figures_then, config.objectives)[is_counted]
        members = [int(name) for name in front(ids, compared)]
        volume = gap = None
        if box is not None and counted.size:
            volume = relative_hypervolume(points[counted], box)
            gap = spacing(points[members], box)
        spread = diversity(space, [history.genomes[genome].genes for genome in population])
        best = _best(config, [figures[place] for place in counted])
        rows.append(Indicators(generation, len(members), volume, gap, spread, best))
    return rows


def _placed(
    state: RunState, finished: Sequence[str], figures: Sequence[Metrics]
) -> tuple[Points, tuple[Points, Points] | None, NDArray[np.bool_]]:
    """Finishers as points to be minimised, the box that they stand in, and which of them count."""
    axes = _axes(state.history)
    if axes:
        return distances(figures, axes), unit_box(axes), np.ones(len(figures), dtype=bool)
    # A run of a version that recorded no box: that of the first who finished and met the
    # constraints; who lacks a figure that others have does not count.
    points = measured(as_minimised(figures, state.config.objectives))
    born = np.asarray([state.history.genomes[genome].generation for genome in finished])
    counts = violations(figures, constraints_of(state.config)) == 0
    counts &= ~np.isnan(points).any(axis=1)
    box = box_of(points[counts & (born == born[counts].min())]) if counts.any() else None
    return points, box, counts


def _axes(history: History) -> tuple[Axis, ...]:
    return history.started.reference if history.started is not None else ()


def _best(config: Config, figures: Sequence[Metrics]) -> dict[str, float | None]:
    """The best figure on each objective; None where there is none."""
    best: dict[str, float | None] = {}
    for objective in config.objectives:
        values = [v for metrics in figures if (v := metrics.get(objective.metric)) is not None]
        better = max if objective.direction == "maximize" else min
        best[objective.metric] = better(values) if values else None
    return best


def has_stalled(state: RunState) -> bool:
    """Whether nothing has moved for `evolution.patience` generations: neither hypervolume and
    diversity nor the best figure on any objective.

    The latter since a volume says little of what happens at its ends: from an AUROC of 0.99 to
    0.991 is a tenth of what was left, and a thousandth of the volume.
    """
    patience = state.config.evolution.patience
    if patience is None:
        return False
    rows = indicators(state, patience + 1)
    # Before anyone has finished there is nothing that could stand still.
    if len(rows) <= patience or rows[0].hypervolume is None:
        return False
    first, *later = rows
    axes = _axes(state.history)
    return not any(_has_moved(first, each, axes) for each in later)


def _has_moved(start: Indicators, later: Indicators, axes: Sequence[Axis]) -> bool:
    """Whether hypervolume or diversity changed, or where the box has `axes` a best figure, or its
    distance from the best that there can be."""
    left = distances([start.best, later.best], axes)
    return (
        _moved(start.hypervolume, later.hypervolume, VOLUME_MOVED if axes else MOVED)
        or _moved(start.diversity, later.diversity, MOVED)
        or any(_moved(start.best[a.metric], later.best[a.metric], MOVED) for a in axes)
        or any(_moved(before, after, LEFT_MOVED) for before, after in left.T.tolist())
    )


def _moved(before: float | None, after: float | None, least: float) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(after - before) > least * max(abs(before), 1e-12)
