"""Progressive rank growth: the rank and alpha at which each stage trains a genome.

The gene `rank` is the final rank; the schedule decides how an adapter gets there. Growing does not
change the function that an adapter computes.
"""

from __future__ import annotations

from dataclasses import dataclass

from coralx.config.hyperband import HyperbandConfig, RankGrowth
from coralx.records.genomes import Genes, Shape

PUBLISHED_PLACE = 2
"""The published form doubles the rank on entering the stage at this place, the third."""

PUBLISHED_BELOW = 16
"""And only a rank under this one."""


@dataclass(frozen=True)
class Growth:
    """How ranks grow under a config."""

    kind: RankGrowth
    multipliers: tuple[int, ...]
    """One for each stage, applied on entering it; used by `by-stage` only."""


def growth_of(configured: HyperbandConfig) -> Growth:
    """The growth that a config describes; with `enable_hyperband: false` nothing grows."""
    return Growth(
        configured.rank_growth if configured.enable_hyperband else "off",
        tuple(stage.rank_multiplier for stage in configured.training_stages),
    )


def shape_at(genes: Genes, growth: Growth, place: int) -> Shape:
    """Rank and alpha in the stage at `place` (from 0). The rank never falls from stage to stage.

    `by-stage` goes back from the final rank: each later multiplier divides it where it does so
    evenly, and is not applied where it does not. Alpha over rank stays. `published` trains at half
    the rank before the third stage where that is whole and under 16, and keeps alpha.
    """
    match growth.kind:
        case "by-stage":
            rank = genes.rank
            # Backwards, so that the last stage trains the gene's rank exactly.
            for multiplier in reversed(growth.multipliers[place + 1 :]):
                rank = rank // multiplier if rank % multiplier == 0 else rank
            return Shape(rank, genes.alpha_ratio * rank)
        case "published":
            half, rest = divmod(genes.rank, 2)
            doubles = rest == 0 and half < PUBLISHED_BELOW and place < PUBLISHED_PLACE
            return Shape(half if doubles else genes.rank, genes.alpha)
        case _:
            return genes.shape
