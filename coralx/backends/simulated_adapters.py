"""Simulated adapters as such: what they are worth and how large they are, and what comes of those
that are derived from them without training.

The relations are plausible, and shaped after what real adapters of small encoders did: skill is a
shallow parabola over the factor by which an update is scaled; cutting costs nothing down to the
rank that the update needs, and from there on the more the lower the rank. What of this is an
adapter's own is drawn from (seed, genome).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from coralx.errors import NotDerivable
from coralx.records.derivations import Derivation
from coralx.records.genomes import ALL_LINEAR, Genes
from coralx.rng import derive_seed
from coralx.search.adapted_layers import lowest_layer

HIDDEN = 384
LAYERS = 6
"""Width and depth of the simulated base, MiniLM's, for plausible numbers of parameters."""

KINDS = ("query", "key", "value", "attention.output", "intermediate", "output", "pooler")
"""What `all-linear` adapts."""

CHANCE = 0.5
"""The skill (AUROC) of an adapter that does nothing."""

CURVATURE = 0.36
"""The share of its gain that an adapter loses by a factor that is off its best one by 1."""

CUT_LOSS = 0.01
"""The share of its gain that it loses by the first halving below the rank that it needs."""

COMPRESSION = 1.5
"""How many times further directions chosen over all modules go than as many in each."""

GROUP_LOSS = 0.004
"""The share of its gain that it loses with the module group that is worth least."""

SOUP_GAIN = 0.01
"""The share by which a mean of updates gains more than its sources do in the mean."""


@dataclass(frozen=True)
class SimulatedAdapter:
    """A finished adapter, as far as derivations depend on it."""

    gain: float
    """Skill above chance that it would have at its best factor, with nothing cut off."""
    modules: float
    """Adapted modules in a layer, or their share that is left."""
    rank: int
    """The highest of its modules."""
    effective: float
    """The rank that it has in the mean."""
    needed: float
    """The rank below which it loses skill."""
    best_factor: float
    calibrated_factor: float
    """By which it is best calibrated."""
    factor: float = 1.0
    """By which it was scaled."""
    lost: float = 0.0
    """The share of its gain that was cut off."""
    groups: tuple[str, ...] = ()
    """What it still adapts: kinds of modules, and layers."""

    @property
    def skill(self) -> float:
        """AUROC on validation."""
        fit = 1.0 - CURVATURE * (self.factor - self.best_factor) ** 2
        return min(CHANCE + self.gain * max(fit, 0.0) * max(1.0 - self.lost, 0.0), 1.0)

    @property
    def parameters(self) -> int:
        return round(2 * HIDDEN * self.effective * self.modules * LAYERS)

    @property
    def miscalibration(self) -> float:
        """What its factor adds to the calibration error."""
        now, as_trained = ((f - self.calibrated_factor) ** 2 for f in (self.factor, 1.0))
        return 0.1 * (now - as_trained)

    @property
    def values(self) -> dict[str, Any]:
        """As JSON keeps it; see `adapter_from`."""
        return dict(vars(self))


def adapter_from(values: dict[str, Any]) -> SimulatedAdapter:
    """The adapter that `values` were written of."""
    return SimulatedAdapter(**{**values, "groups": tuple(values["groups"])})


def parameters_of(genes: Genes) -> int:
    """Parameters that an adapter of the simulated base has."""
    return round(2 * HIDDEN * genes.rank * modules_of(genes) * LAYERS)


def modules_of(genes: Genes) -> float:
    """Modules of a layer that are adapted, in the mean."""
    return len(_kinds(genes)) * (1.0 - lowest_layer(genes.layers, LAYERS) / LAYERS)


def _kinds(genes: Genes) -> tuple[str, ...]:
    return KINDS if genes.target_modules == ALL_LINEAR else tuple(genes.target_modules)


def trained(seed: int, genome: str, genes: Genes, skill: float) -> SimulatedAdapter:
    """The adapter of a genome that training brought to this skill."""
    rng = _random(seed, genome)
    best, calibrated = rng.uniform(0.6, 1.2), rng.uniform(0.6, 1.2)
    lowest = lowest_layer(genes.layers, LAYERS)
    layers = tuple(f"layer {number}" for number in range(lowest, LAYERS))
    return SimulatedAdapter(
        gain=(skill - CHANCE) / (1.0 - CURVATURE * (1.0 - best) ** 2),
        modules=modules_of(genes),
        rank=genes.rank,
        effective=float(genes.rank),
        needed=genes.rank * 2 ** rng.uniform(-3.0, -1.0),
        best_factor=best,
        calibrated_factor=calibrated,
        groups=(*_kinds(genes), *layers),
    )


def derive(
    seed: int, genome: str, derivation: Derivation, sources: Sequence[SimulatedAdapter]
) -> tuple[SimulatedAdapter, Derivation]:
    """The adapter of a derived genome, and its derivation with the groups that were dropped. Raises
    NotDerivable where more groups are to be dropped than there are, save one."""
    source = sources[0]
    match derivation.operator:
        case "truncate":
            return _truncated(source, derivation.rank or source.rank), derivation
        case "compress":
            return _compressed(source, derivation.share or 1.0), derivation
        case "scale":
            factor = 1.0 if derivation.factor is None else derivation.factor
            return replace(source, factor=source.factor * factor), derivation
        case "drop":
            return _without_groups(seed, genome, derivation, source)
        case "soup":
            rank = derivation.rank or source.rank
            return _soup(seed, genome, rank, derivation.weights, sources), derivation


def _truncated(source: SimulatedAdapter, rank: int) -> SimulatedAdapter:
    effective = min(source.effective, float(rank))
    more = _cut_loss(source.needed, effective) - _cut_loss(source.needed, source.effective)
    return replace(
        source, rank=min(source.rank, rank), effective=effective, lost=source.lost + more
    )


def _compressed(source: SimulatedAdapter, share: float) -> SimulatedAdapter:
    effective, needed = source.effective * share, source.needed / COMPRESSION
    more = _cut_loss(needed, effective) - _cut_loss(needed, source.effective)
    return replace(source, effective=effective, lost=source.lost + more)


def _without_groups(
    seed: int, genome: str, derivation: Derivation, source: SimulatedAdapter
) -> tuple[SimulatedAdapter, Derivation]:
    count = len(derivation.groups) or derivation.count or 0
    if count >= len(source.groups):
        raise NotDerivable(f"{count} of {len(source.groups)} module groups cannot be dropped")
    dropped = derivation.groups or sorted(_random(seed, genome).sample(source.groups, count))
    kinds = [group for group in source.groups if not group.startswith("layer ")]
    modules = source.modules
    for group in dropped:
        fellows = len(kinds) if group in kinds else len(source.groups) - len(kinds)
        modules *= 1.0 - 1.0 / max(fellows, 2)
    derived = replace(
        source,
        modules=modules,
        lost=source.lost + GROUP_LOSS * count**2,
        groups=tuple(group for group in source.groups if group not in dropped),
    )
    return derived, replace(derivation, groups=tuple(dropped))


def _soup(
    seed: int,
    genome: str,
    rank: int,
    weights: Sequence[float],
    sources: Sequence[SimulatedAdapter],
) -> SimulatedAdapter:
    rng = _random(seed, genome)
    shares = weights or [1.0 / len(sources)] * len(sources)
    parts = list(zip(shares, sources, strict=True))
    gain = (1.0 + SOUP_GAIN) * sum(share * (part.skill - CHANCE) for share, part in parts)
    best = rng.uniform(0.6, 1.2)
    needed = max(part.needed for part in sources)
    return SimulatedAdapter(
        gain=gain / (1.0 - CURVATURE * (1.0 - best) ** 2),
        modules=max(part.modules for part in sources),
        rank=rank,
        effective=float(rank),
        needed=needed,
        best_factor=best,
        calibrated_factor=rng.uniform(0.6, 1.2),
        lost=_cut_loss(needed, float(rank)),
        groups=max((part.groups for part in sources), key=len),
    )


def _cut_loss(needed: float, rank: float) -> float:
    """The share of its gain that an update loses which needs one rank and has another."""
    halvings = max(math.log2(needed / rank), 0.0)
    return CUT_LOSS * halvings * (1.0 + halvings / 3.0)


def _random(seed: int, genome: str) -> Random:
    return Random(derive_seed(seed, "simulated-adapter", genome))  # noqa: S311
