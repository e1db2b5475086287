"""What derivations are after, and what they start from: the nouns of `search.derivations`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from coralx.config.conditions import Condition
from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import metric_entry
from coralx.records.derivations import Derivation, Operator
from coralx.records.genomes import Genome
from coralx.records.results import Metrics
from coralx.records.run_facts import Axis
from coralx.search.space import Gene, Integer, Ordered

UNTRIED: tuple[Operator, ...] = ("truncate", "scale", "soup", "compress", "drop")
"""The order in which operators have their first look: what gained most for least comes first. Where
a small adapter is wanted, hardly any look is as sure of a gain as a cut."""

FOR_SIZE: tuple[Operator, ...] = ("truncate", "compress", "drop")
"""Of use only where a smaller adapter is wanted."""


@dataclass(frozen=True)
class Aims:
    """What a run is after, and how it may get there."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Condition, ...]
    axes: tuple[Axis, ...]
    """The box of the hypervolume, an axis for each objective."""
    operators: tuple[Operator, ...]
    rank: Gene | None
    """The ranks of the search space; None: only the one that all have."""
    first_group: float
    """What it costs to find the group of modules that is worth least, in looks."""
    further_group: float
    """The same for each further one."""

    @cached_property
    def quality(self) -> tuple[Objective, ...]:
        """Objectives that an adapter's function decides, and not its size alone."""
        return _of_quality(self.objectives)

    @cached_property
    def useful(self) -> tuple[Operator, ...]:
        """Those of the operators that can lead to what is wanted."""
        return useful_operators(self.operators, self.objectives, self.constraints)

    def cost(self, derivation: Derivation) -> int:
        """In looks, rounded up."""
        if derivation.operator != "drop":
            return 1
        further = (derivation.count or 1) - 1
        return 1 + math.ceil(self.first_group + further * self.further_group)


def lower_ranks(ranks: Gene | None, rank: int) -> tuple[int, ...]:
    """Of the `ranks` of a search space (None: only the one that all have) those below this one,
    ascending; of a range the powers of two."""
    match ranks:
        case Ordered(values):
            known = {int(value) for value in values}
        case Integer(low, high):
            powers = (2**power for power in range(high.bit_length()))
            known = {low, *(power for power in powers if low <= power <= high)}
        case _:
            known = set()
    return tuple(sorted(other for other in known if other < rank))


@dataclass(frozen=True)
class Finisher:
    """A genome with figures of the last stage."""

    genome: Genome
    metrics: Metrics
    is_source: bool = True
    """Whether its checkpoint is there, to derive from."""
    descent: str = ""
    """The genome with whose first weights its lineage began."""


@dataclass(frozen=True)
class Look:
    """A derivation that was tried, and what came of it."""

    genome: Genome
    metrics: Metrics | None
    """None: it failed."""
    cost: int = 1
    """In looks."""
    is_source: bool = True


def useful_operators(
    operators: Sequence[Operator],
    objectives: Sequence[Objective],
    constraints: Sequence[Condition],
) -> tuple[Operator, ...]:
    """Those that can lead to what is wanted, in the order of their first looks: none, where that is
    a figure of training, which a derived adapter does not have."""
    wanted = {one.metric for one in objectives} | {one.metric for one in constraints}
    if any(metric_entry(metric).source == "training" for metric in wanted):
        return ()
    needs_small = any(_is_size(metric) for metric in wanted)
    needs_skill = bool(_of_quality(objectives))
    return tuple(
        operator
        for operator in UNTRIED
        if operator in operators and (needs_small if operator in FOR_SIZE else needs_skill)
    )


def operator_of(genome: Genome) -> Operator | None:
    """How a genome was derived; None: it was trained."""
    return None if genome.derived is None else genome.derived.operator


def _of_quality(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    return tuple(one for one in objectives if not _is_size(one.metric))


def _is_size(metric: str) -> bool:
    return metric_entry(metric).source in ("adapter", "measurement")
