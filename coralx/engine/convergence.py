"""Whether the search still moves: the front's hypervolume and the population's diversity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coralx.engine.state import RunState
from coralx.records.genomes import Genes
from coralx.records.results import Metrics
from coralx.records.run_facts import Axis
from coralx.search.hypervolume_box import distances, unit_box
from coralx.search.indicators import box_of, diversity, relative_hypervolume, spacing
from coralx.search.pareto import Points, as_minimised, front, measured_objectives
from coralx.search.progress import volume_gain
from coralx.search.ranking import constraints_of, violations
from coralx.search.space import space_of
from coralx.storage.history import History

MOVED = 0.01
"""A relative change of hypervolume or of diversity below this is none."""


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


def indicators(state: RunState, newest: int | None = None) -> list[Indicators]:
    """Figures of every completed generation, or of the `newest` ones, on the validation split."""
    config, history, last_stage = state.config, state.history, state.last_stage
    space = space_of(config)
    finished = state.finished()
    figures = [history.results[genome, last_stage].metrics for genome in finished]
    points, box, counts = _placed(state, finished, figures)
    arrival = _arrival(state, finished)
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
        spread = diversity(space, genes_of(history, population))
        rows.append(Indicators(generation, len(members), volume, gap, spread))
    return rows


def genes_of(history: History, population: Sequence[str]) -> list[Genes]:
    """Of each lineage once: what a derived genome was trained with is its source's."""
    roots = dict.fromkeys(history.root(genome) for genome in population)
    return [history.genomes[genome].genes for genome in roots]


def _arrival(state: RunState, finished: Sequence[str]) -> NDArray[np.int64]:
    """How many results came before that of each finisher. It counts for a generation if it came
    before its survivors were chosen: where generations overlap that is no question of the
    generation that the genome belongs to."""
    came = {key: place for place, key in enumerate(state.history.results)}
    return np.asarray([came[genome, state.last_stage] for genome in finished], dtype=np.int64)


def _placed(
    state: RunState, finished: Sequence[str], figures: Sequence[Metrics]
) -> tuple[Points, tuple[Points, Points] | None, NDArray[np.bool_]]:
    """Finishers as points to be minimised, the box that they stand in, and which of them count."""
    axes = _axes(state.history)
    if axes:
        return distances(figures, axes), unit_box(axes), np.ones(len(figures), dtype=bool)
    # A run of a version that recorded no box: that of the first who finished and met the
    # constraints; who lacks a figure that others have does not count.
    points = measured_objectives(as_minimised(figures, state.config.objectives))
    born = np.asarray([state.history.genomes[genome].generation for genome in finished])
    counts = violations(figures, constraints_of(state.config)) == 0
    counts &= ~np.isnan(points).any(axis=1)
    box = box_of(points[counts & (born == born[counts].min())]) if counts.any() else None
    return points, box, counts


def _axes(history: History) -> tuple[Axis, ...]:
    return history.started.reference if history.started is not None else ()


def has_stalled(state: RunState) -> bool:
    """Whether neither the front's hypervolume nor the population's diversity has moved for
    `evolution.patience` generations.

    The hypervolume is not the reported one, in whose box a metric without an end, or one of which
    only a part occurs, takes up next to nothing, but that of `search.progress`.
    """
    patience = state.config.evolution.patience
    if patience is None:
        return False
    window = indicators(state, patience + 1)
    if len(window) <= patience or window[0].hypervolume is None:
        return False
    start, *later = window
    return not any(
        _moved(start.diversity, one.diversity) or _has_gained(state, start, one) for one in later
    )


def _has_gained(state: RunState, start: Indicators, later: Indicators) -> bool:
    axes = _axes(state.history)
    if not axes:
        # Both volumes are in the box of the first finishers, as that version had it.
        return _moved(start.hypervolume or 0.0, later.hypervolume or 0.0)
    config, history, finished = state.config, state.history, state.finished()
    arrival = _arrival(state, finished)
    known = np.flatnonzero(arrival < history.known_by[later.generation])
    figures = [history.results[finished[place], state.last_stage].metrics for place in known]
    meets = np.flatnonzero(violations(figures, constraints_of(config)) == 0)
    was_known = arrival[known[meets]] < history.known_by[start.generation]
    meeting = [figures[place] for place in meets]
    return volume_gain(meeting, was_known, config.objectives, axes) > MOVED


def _moved(before: float, after: float) -> bool:
    return abs(after - before) > MOVED * max(abs(before), 1e-12)
