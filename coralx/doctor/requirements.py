"""What a config needs of a machine, memory for its genomes and disk for their checkpoints, and
whether the disk has that much: asked before a run writes anything."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from coralx.backends.memory_estimate import (
    adapter_parameters,
    extremes,
    host_pool_bytes,
    least_bytes,
    likely_bytes,
)
from coralx.config import Config
from coralx.engine.succession import succession_of
from coralx.errors import SetupError
from coralx.records.genomes import Genes
from coralx.records.run_facts import Footprint
from coralx.schedule.adaptive_rungs import MOST_POPULATIONS
from coralx.schedule.brackets import brackets_of, cohort_sizes
from coralx.schedule.rank_growth import growth_of, shape_at
from coralx.schedule.stages import planned_stages
from coralx.search.space import space_of
from coralx.storage.layout import RUNS, RunLayout
from coralx.text import gib

WEIGHT_BYTES, STATE_BYTES = 4, 8
"""Of each trained parameter on disk: its weight, and Adam's two moments."""

Verdict = Literal["fits", "may run out of memory", "does not fit", "unknown"]


@dataclass(frozen=True)
class Need:
    """The memory that training one genome takes."""

    genes: Genes
    parameters: int
    """Those that are trained."""
    least_bytes: int
    """What is certain: base, adapter, gradients and optimizer state."""
    likely_bytes: int
    """An estimate that includes the activations of one batch."""
    verdict: Verdict


@dataclass(frozen=True)
class Requirements:
    """What a config needs: for its smallest and largest genome, and for a whole run."""

    base: str
    base_parameters: int
    base_bytes: int
    capacity_bytes: int
    """The device's memory; 0 where it does not tell."""
    smallest: Need
    largest: Need
    together: int
    """How many genomes of the largest size fit beside one base, with one batch each."""
    checkpointing: bool
    """Whether a run would recompute activations."""
    sharing: int
    """How many workers share the device; `capacity_bytes` is the share of one."""
    host_bytes: int
    """What Unsloth would keep of the activations of one worker's largest batch in host memory."""
    checkpoints: int
    """The most that are on disk at once."""
    disk_bytes: int
    """What that many of the largest size and the front's adapters take."""
    least_disk_bytes: int
    """What the first generation takes if all of it is of the smallest size."""


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a run's checkpoints and `best/` take on disk."""

    least: int
    """If every genome is of the smallest size and the search ends with its first generation."""
    most: int
    """If every genome is of the largest size."""
    one: int
    """A checkpoint of the smallest size."""
    checkpoints: int
    """The most that are on disk at once: a number, not bytes."""


def requirements_of(config: Config, footprint: Footprint, capacity: int) -> Requirements:
    """The needs of the smallest and the largest genome of the search space, and of a whole run."""
    length = config.model.max_length
    small, large = extremes(space_of(config), footprint, length)
    smallest, largest = (_need(footprint, genes, length, capacity) for genes in (small, large))
    left = capacity - footprint.base_bytes  # a worker holds one base, whatever trains on it
    disk = disk_need(config, footprint)
    return Requirements(
        base=str(config.model.base),
        base_parameters=footprint.base_parameters,
        base_bytes=footprint.base_bytes,
        capacity_bytes=capacity,
        smallest=smallest,
        largest=largest,
        together=max(0, left // (largest.likely_bytes - footprint.base_bytes)),
        checkpointing=footprint.checkpointing,
        sharing=footprint.sharing,
        host_bytes=host_pool_bytes(footprint, large, length, config.longest_text),
        checkpoints=disk.checkpoints,
        disk_bytes=disk.most,
        least_disk_bytes=disk.least,
    )


def disk_need(config: Config, footprint: Footprint) -> DiskNeed:
    """What a run will need on disk, from its config and the sizes of its base."""
    small, large = extremes(space_of(config), footprint, config.model.max_length)
    shape = shape_at(small, growth_of(config.hyperband_config), 0)  # before its rank grows
    small = replace(small, rank=shape.rank)
    least, most = (adapter_parameters(footprint, genes) for genes in (small, large))
    checkpoints, population = _kept(config), config.evolution.population_size
    per_parameter = WEIGHT_BYTES + STATE_BYTES
    return DiskNeed(
        least=least * (population * per_parameter + WEIGHT_BYTES),
        most=most * (checkpoints * per_parameter + population * WEIGHT_BYTES),
        one=least * per_parameter,
        checkpoints=checkpoints,
    )


def _need(footprint: Footprint, genes: Genes, length: int, capacity: int) -> Need:
    least, likely = least_bytes(footprint, genes), likely_bytes(footprint, genes, length)
    verdict: Verdict = "fits"
    if capacity == 0:
        verdict = "unknown"
    elif likely > capacity:
        verdict = "does not fit" if least > capacity else "may run out of memory"
    return Need(genes, adapter_parameters(footprint, genes), least, likely, verdict)


def _kept(config: Config) -> int:
    """The most checkpoints that lie on disk at once, if no stop rule takes a genome out."""
    evolution, schedule = config.evolution, config.hyperband_config
    stages, brackets = planned_stages(config, config.known_rows), brackets_of(schedule)
    births = [evolution.births(generation) for generation in range(evolution.generations)]
    if schedule.enable_hyperband and schedule.rungs == "adaptive":
        births = [MOST_POPULATIONS * born for born in births]
    sizes = [cohort_sizes(stages, born, brackets) for born in births]
    recipes = 2 if space_of(config).priors else 1
    comparisons = recipes * len(stages) if config.runtime.baseline else 0
    comparisons += evolution.population_size * len(stages) if config.runtime.verify_front else 0
    if config.runtime.keep_checkpoints == "all":
        return sum(map(sum, sizes)) + comparisons
    return succession_of(schedule).most_checkpoints(evolution, sizes, brackets) + comparisons


WAYS_OUT = (
    "Free disk space, or have less written: smaller ranks, fewer target_modules, a smaller "
    "evolution.population_size, runtime.keep_checkpoints: needed."
)


def free_bytes(folder: Path) -> int:
    """What is free on the file system on which `folder` lies, or will lie."""
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def require_room(
    config: Config, footprint: Footprint | None, layout: RunLayout | None = None
) -> str | None:
    """A warning where the disk may fill before the run ends; None where it will not, or where
    nothing is trained. With the `layout` of a run that goes on, what it holds is counted as there.

    Raises SetupError where not even the least fits: of a new run its first generation, of one that
    goes on a single checkpoint, since what it has left to write is unknown.
    """
    if footprint is None:
        return None
    need = disk_need(config, footprint)
    folder = layout.root if layout else RUNS
    free, least, most = free_bytes(folder), need.least, need.most
    if layout is not None:
        least, most = need.one, max(need.one, need.most - _size(layout))
    shortage = (
        f"the run writes at least {gib(least)}, up to {gib(most)} if all its genomes are of the "
        f"largest size, but only {gib(free)} are free on the disk of {folder.resolve()}"
    )
    if free < least:
        raise SetupError(shortage, WAYS_OUT)
    return f"{shortage}. {WAYS_OUT}" if free < most else None


def _size(layout: RunLayout) -> int:
    """Bytes that lie in the run's checkpoints and in `best/`."""
    size = 0
    for top in (layout.checkpoints, layout.best):
        for folder, _, names in os.walk(top):  # passes over what goes while it is listed
            for name in names:
                with suppress(OSError):
                    size += os.stat(os.path.join(folder, name)).st_size
    return size
