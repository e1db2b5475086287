"""What a config needs of a machine: memory for its genomes, disk for their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from coralx.config import Config
from coralx.facts import Footprint
from coralx.genomes import Genes
from coralx.schedule.brackets import brackets_of, cohort_sizes
from coralx.schedule.stages import is_asynchronous, schedule_of
from coralx.search.space import Continuous, Gene, Integer, Space, space_of
from coralx.training.memory import adapter_parameters, least_bytes, likely_bytes

SIZING = ("rank", "batch_size", "target_modules", "use_dora")
"""The genes that memory depends on."""

WEIGHT_BYTES, STATE_BYTES = 4, 8
"""Of each trained parameter on disk: its weight, and Adam's two moments."""

Verdict = Literal["fits", "may run out of memory", "does not fit", "unknown"]


@dataclass(frozen=True)
class Need:
    """What training one genome takes: bytes that are certain, and bytes by estimate."""

    genes: Genes
    parameters: int
    least_bytes: int
    likely_bytes: int
    verdict: Verdict


@dataclass(frozen=True)
class Requirements:
    """`capacity_bytes` is the device's memory (0: it does not tell), `together` how many genomes of
    the largest size fit beside one base, a batch each. `disk_bytes` is what `checkpoints` of that
    size and the front's adapters take at most."""

    base: str
    base_parameters: int
    base_bytes: int
    capacity_bytes: int
    smallest: Need
    largest: Need
    together: int
    checkpoints: int
    disk_bytes: int


def requirements_of(config: Config, footprint: Footprint, capacity: int) -> Requirements:
    """The needs of the smallest and the largest genome of the search space, and of a whole run."""
    length = config.model.max_length
    small, large = _extremes(space_of(config), footprint, length)
    smallest, largest = (_need(footprint, genes, length, capacity) for genes in (small, large))
    left = capacity - footprint.base_bytes
    checkpoints, front = _kept(config), config.evolution.population_size
    disk = checkpoints * (WEIGHT_BYTES + STATE_BYTES) + front * WEIGHT_BYTES
    return Requirements(
        base=str(config.model.base),
        base_parameters=footprint.base_parameters,
        base_bytes=footprint.base_bytes,
        capacity_bytes=capacity,
        smallest=smallest,
        largest=largest,
        together=max(0, left // (largest.likely_bytes - footprint.base_bytes)),
        checkpoints=checkpoints,
        disk_bytes=largest.parameters * disk,
    )


def _need(footprint: Footprint, genes: Genes, length: int, capacity: int) -> Need:
    least, likely = least_bytes(footprint, genes), likely_bytes(footprint, genes, length)
    verdict: Verdict = "fits"
    if capacity == 0:
        verdict = "unknown"
    elif likely > capacity:
        verdict = "does not fit" if least > capacity else "may run out of memory"
    return Need(genes, adapter_parameters(footprint, genes), least, likely, verdict)


def _extremes(space: Space, footprint: Footprint, length: int) -> tuple[Genes, Genes]:
    """The genes of the search space that take the least and the most memory."""
    options = {name: _ends(space.genes[name]) for name in SIZING if name in space.genes}
    corners = [
        space.build(dict(zip(options, values, strict=True)))
        for values in product(*options.values())
    ]
    corners.sort(key=lambda genes: likely_bytes(footprint, genes, length))
    return corners[0], corners[-1]


def _ends(gene: Gene) -> Sequence[Any]:
    """A gene's two ends, or all its choices."""
    return (gene.low, gene.high) if isinstance(gene, Continuous | Integer) else gene.values


def _kept(config: Config) -> int:
    """The most checkpoints that lie on disk at once, if no stop rule takes a genome out."""
    evolution, schedule = config.evolution, config.hyperband_config
    stages, brackets = schedule_of(schedule), brackets_of(schedule)
    generations = range(evolution.generations)
    copies = int(evolution.pbt_quantile * evolution.population_size) * (len(stages) - 1)
    if config.runtime.keep_checkpoints == "all":
        sizes = [cohort_sizes(stages, evolution.births(g), brackets) for g in generations]
        return sum(sum(cohort) for cohort in sizes)
    if is_asynchronous(schedule):  # whoever may still go on
        return sum(evolution.births(generation) for generation in generations)
    return evolution.population_size + evolution.births(1) + copies  # parents and newborns
