"""Whether the search still moves: the front's hypervolume and the population's diversity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coralx.config import Config
from coralx.run.history import History
from coralx.search.constraints import constraints_of, violations
from coralx.search.indicators import box_of, diversity, relative_hypervolume, spacing
from coralx.search.pareto import as_minimised, front, measured
from coralx.search.space import space_of

MOVED = 0.01
"""A relative change below this is none."""


@dataclass(frozen=True)
class Indicators:
    """A generation's figures. `hypervolume` is that of the front so far, a share of the box that
    the first finishers span: the same box for the whole run. None before anyone has finished who
    meets the constraints; others count for nothing. `front` counts its members; `diversity` is that
    of the surviving population."""

    generation: int
    front: int
    hypervolume: float | None
    spacing: float | None
    diversity: float


def indicators(config: Config, history: History, last_stage: str) -> list[Indicators]:
    """Figures of every completed generation, on the validation split."""
    space = space_of(config)
    finished = history.finished(last_stage)
    figures = [history.results[genome, last_stage].metrics for genome in finished]
    points = measured(as_minimised(figures, config.objectives))
    born = np.asarray([history.genomes[genome].generation for genome in finished])
    feasible = violations(figures, constraints_of(config)) == 0
    sound = feasible & ~np.isnan(points).any(axis=1)
    first = born[sound].min() if sound.any() else None
    box = box_of(points[sound & (born == first)]) if first is not None else None
    found = []
    for generation, population in sorted(history.populations.items()):
        places = np.flatnonzero(sound & (born <= generation))
        volume = gap = None
        members: list[int] = []
        if box is not None and len(places):
            ids = [str(place) for place in places]
            members = [int(name) for name in front(ids, points[places])]
            volume = relative_hypervolume(points[members], box)
            gap = spacing(points[members], box)
        spread = diversity(space, [history.genomes[genome].genes for genome in population])
        found.append(Indicators(generation, len(members), volume, gap, spread))
    return found


def has_stalled(config: Config, history: History, last_stage: str) -> bool:
    """Whether neither hypervolume nor diversity has moved for `evolution.patience` generations."""
    patience = config.evolution.patience
    if patience is None:
        return False
    found = indicators(config, history, last_stage)[-patience - 1 :]
    if len(found) <= patience or found[0].hypervolume is None:
        return False
    start = found[0]
    return not any(
        _moved(start.hypervolume, later.hypervolume) or _moved(start.diversity, later.diversity)
        for later in found[1:]
    )


def _moved(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(after - before) > MOVED * max(abs(before), 1e-12)
