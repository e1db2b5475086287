"""Configurations that need no training: repeats, ranks that a cut makes for nothing, and rates that
exploded before."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coralx.records.genomes import ALL_LINEAR, GENE_NAMES, Genes, TargetModules

CLOSE: Mapping[str, tuple[float, float]] = {
    "learning_rate": (0.02, 0.0),
    "alpha_ratio": (0.02, 0.0),
    "dropout": (0.0, 0.005),
    "weight_decay": (0.02, 1e-4),
    "warmup_ratio": (0.0, 0.005),
}
"""By gene the relative and the absolute difference that counts as none: it changes less than
another seed does."""

EXPLOSIONS = 2
"""A single one may be chance, as of a bad start."""


class Seen:
    """Configurations that are not to be trained again: those that equal one of these."""

    def __init__(self, trained: Iterable[Genes] = ()) -> None:
        self._trained = set(trained)

    def __contains__(self, genes: Genes) -> bool:
        return genes in self._trained

    def add(self, genes: Genes) -> None:
        """One that is going to be trained."""
        self._trained.add(genes)

    def order(self, candidates: Sequence[Genes]) -> Sequence[int]:
        """The places of candidates in the order in which they are to be admitted."""
        return range(len(candidates))

    def is_last_resort(self, genes: Genes) -> bool:
        """Whether one of these may be trained where the space has nothing else."""
        return False


@dataclass(frozen=True)
class Courses:
    """How the trainings of a search went so far."""

    trained: Sequence[Genes]
    """All that were begun or are about to."""
    finished: Sequence[Genes] = ()
    exploded: Sequence[Genes] = ()


class Needless(Seen):
    """Configurations that are not to be trained. In comparison with the courses so far, and with
    what is added:

    - the same training under other names: of equal scaling with and without rsLoRA, of modules that
      mean the same layers, or with differences that are none (`CLOSE`);
    - with `cuts`, where adapters are cut to lower ranks without training, what differs from a
      finished one by a lower rank alone, or from one that is added by its rank alone;
    - rates at which two exploded: of the same modules, with no higher rates, no greater scaling and
      no smaller batches; unless one finished that was no more cautious than the candidate.

    `layers` are the full names of the layers that LoRA can adapt, as far as known.
    """

    def __init__(self, courses: Courses, *, cuts: bool, layers: Sequence[str] = ()) -> None:
        self._layers = layers
        self._cuts = cuts
        self._meanings: dict[TargetModules, TargetModules] = {}
        self._trained_before = _Near()
        self._sources = _Near(ignoring=("rank",))
        self._added = _Near(ignoring=("rank",))
        for genes in courses.trained:
            self._trained_before.add(_effective(self._meant(genes)))
        for genes in courses.finished:
            self._sources.add(self._meant(genes))
        self._finished = _by_kind(map(self._meant, courses.finished))
        self._exploded = _by_kind(map(self._meant, courses.exploded))

    def __contains__(self, genes: Genes) -> bool:
        meant = self._meant(genes)
        return self._is_repeat(meant) or self._is_cut(meant) or self._explodes(meant)

    def add(self, genes: Genes) -> None:
        """One that is going to be trained."""
        meant = self._meant(genes)
        self._trained_before.add(_effective(meant))
        self._added.add(meant)

    def order(self, candidates: Sequence[Genes]) -> Sequence[int]:
        """The places, the highest rank first: of two that differ by it alone the lower one is to be
        another."""
        return sorted(range(len(candidates)), key=lambda place: -candidates[place].rank)

    def is_last_resort(self, genes: Genes) -> bool:
        """What is needless for its rank alone: a cut may cost quality."""
        meant = self._meant(genes)
        return not (self._is_repeat(meant) or self._explodes(meant))

    def _meant(self, genes: Genes) -> Genes:
        """The genes, their modules by the layers that they mean; of a head alone none that an
        adapter has."""
        if not genes.adapts_base:
            common = Genes()
            ignored = ("rank", "alpha_ratio", "dropout", "use_rslora", "use_dora")
            return replace(genes, **{name: getattr(common, name) for name in ignored})
        targets = genes.target_modules
        if targets not in self._meanings:
            self._meanings[targets] = self._adapted(targets)
        return replace(genes, target_modules=self._meanings[targets])

    def _adapted(self, targets: TargetModules) -> TargetModules:
        """The layers that are adapted, as PEFT matches names: by whole parts at their end."""
        if not self._layers or targets == ALL_LINEAR:
            return tuple(self._layers) or targets
        return tuple(
            layer
            for layer in self._layers
            if any(f".{layer}".endswith(f".{target}") for target in targets)
        )

    def _is_repeat(self, genes: Genes) -> bool:
        return any(True for _ in self._trained_before.to(_effective(genes)))

    def _is_cut(self, genes: Genes) -> bool:
        if not self._cuts or genes.use_dora or not genes.adapts_base:
            return False
        if any(other.rank > genes.rank for other in self._sources.to(genes)):
            return True
        # Of two that are added either would be a cut of the other.
        return any(True for _ in self._added.to(genes))

    def _explodes(self, genes: Genes) -> bool:
        kind, own = _kind(genes), _boldness(genes)
        exploded, finished = self._exploded.get(kind), self._finished.get(kind)
        if exploded is None or np.count_nonzero((exploded <= own).all(axis=1)) < EXPLOSIONS:
            return False
        return finished is None or not (finished >= own).all(axis=1).any()


class _Near:
    """Configurations, found by others that differ from them by nothing but the genes `ignoring`,
    and in others no more than `CLOSE` allows."""

    def __init__(self, ignoring: Sequence[str] = ()) -> None:
        self._exact = [name for name in GENE_NAMES if name not in CLOSE and name not in ignoring]
        self._cells: dict[tuple[Any, ...], dict[tuple[int, int], list[Genes]]] = {}

    def add(self, genes: Genes) -> None:
        self._cells.setdefault(self._key(genes), {}).setdefault(_cell(genes), []).append(genes)

    def to(self, genes: Genes) -> Iterator[Genes]:
        """Those that count as equal but for what is ignored."""
        cells = self._cells.get(self._key(genes), {})
        rate, dropout = _cell(genes)
        for cell in product((rate - 1, rate, rate + 1), (dropout - 1, dropout, dropout + 1)):
            yield from (other for other in cells.get(cell, ()) if _is_close(genes, other))

    def _key(self, genes: Genes) -> tuple[Any, ...]:
        return tuple(getattr(genes, name) for name in self._exact)


def _is_close(genes: Genes, other: Genes) -> bool:
    return all(
        math.isclose(getattr(genes, name), getattr(other, name), rel_tol=rel, abs_tol=absolute)
        for name, (rel, absolute) in CLOSE.items()
    )


def _cell(genes: Genes) -> tuple[int, int]:
    """Of rate and dropout: values that count as equal lie in one cell, or in neighbouring ones."""
    rate = -math.log(1.0 - CLOSE["learning_rate"][0])
    dropout = CLOSE["dropout"][1]
    return math.floor(math.log(genes.learning_rate) / rate), math.floor(genes.dropout / dropout)


def _effective(genes: Genes) -> Genes:
    """The genes with the scaling of the update in place of alpha's ratio."""
    return replace(genes, alpha_ratio=_scaling(genes), use_rslora=False)


def _scaling(genes: Genes) -> float:
    """By which BA is multiplied: alpha over the rank, with rsLoRA over its root."""
    return genes.alpha_ratio * (math.sqrt(genes.rank) if genes.use_rslora else 1.0)


def _kind(genes: Genes) -> tuple[Any, ...]:
    return genes.target_modules, genes.use_dora


def _boldness(genes: Genes) -> tuple[float, float, int]:
    """What each makes an explosion likelier, the greater it is: rate, scaling, and batches that are
    small."""
    return genes.learning_rate, _scaling(genes), -genes.batch_size


def _by_kind(many: Iterable[Genes]) -> Mapping[tuple[Any, ...], NDArray[np.float64]]:
    """The boldness of each, a row each, by kind."""
    rows: dict[tuple[Any, ...], list[tuple[float, float, int]]] = defaultdict(list)
    for genes in many:
        rows[_kind(genes)].append(_boldness(genes))
    return {kind: np.asarray(listed, dtype=np.float64) for kind, listed in rows.items()}
