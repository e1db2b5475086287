"""The box of a run's hypervolume (`search.hypervolume_box`), fixed before anything is trained."""

from __future__ import annotations

from coralx.backends.memory_estimate import adapter_parameters, corners
from coralx.backends.simulated_adapters import parameters_of
from coralx.config import Config
from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import metric_entry
from coralx.records.run_facts import Axis, Facts
from coralx.search.space import space_of

BYTES_PER_SAVED = 2, 4
"""The fewest and the most that a saved parameter takes: half or single precision."""


def reference_of(config: Config, facts: Facts) -> tuple[Axis, ...]:
    """An axis for each objective: the metric's own range, and for an adapter's size from the
    smallest adapter of the search space to the largest, where the base's sizes are known."""
    return tuple(_axis(objective, config, facts) for objective in config.objectives)


def _axis(objective: Objective, config: Config, facts: Facts) -> Axis:
    metric = objective.metric
    extent = metric_entry(metric).extent
    low, high = extent.low, extent.high
    sizes = _sizes(config, facts) if metric_entry(metric).source == "adapter" else None
    if sizes is not None:
        fewest, most = BYTES_PER_SAVED if metric == "adapter_bytes" else (1, 1)
        low, high = float(fewest * min(sizes)), float(most * max(sizes))
        high = max(high, 2.0 * low, 1.0)  # a space of one size has no extent of its own
    return Axis(metric, objective.direction or "minimize", extent.scale, low, high)


def _sizes(config: Config, facts: Facts) -> list[int] | None:
    """Parameters of the adapters at the corners of the search space; None where nobody knows."""
    genes = corners(space_of(config))
    if facts.backend == "simulated":
        return [parameters_of(one) for one in genes]
    footprint = facts.footprint
    return None if footprint is None else [adapter_parameters(footprint, one) for one in genes]
