"""Genomes: LoRA configurations with an identity and a history."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from coralx.records.derivations import Derivation
from coralx.rng import derive_seed

TargetModules = tuple[str, ...] | Literal["all-linear"]
ALL_LINEAR: Literal["all-linear"] = "all-linear"

Layers = Literal["all", "top-half", "top-quarter"] | int
"""Which of a base's layers are adapted; a number counts from the top. Shares are rounded up."""
ALL_LAYERS: Literal["all"] = "all"


@dataclass(frozen=True)
class Shape:
    """An adapter's rank and alpha."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class Genes:
    """One LoRA configuration; alpha is a ratio to the rank, so that resizing keeps the scaling."""

    rank: int = 16
    alpha_ratio: float = 1.0
    dropout: float = 0.0
    learning_rate: float = 2e-4
    target_modules: TargetModules = ALL_LINEAR
    weight_decay: float = 0.0
    warmup_ratio: float = 0.06
    batch_size: int = 16
    use_rslora: bool = False
    use_dora: bool = False
    layers: Layers = ALL_LAYERS

    @property
    def alpha(self) -> float:
        """LoRA alpha: ratio times rank."""
        return self.alpha_ratio * self.rank

    @property
    def adapts_base(self) -> bool:
        """Whether anything in the base is adapted; else a classifier's head is trained alone."""
        return bool(self.target_modules)

    @property
    def shape(self) -> Shape:
        """Rank and alpha of the finished adapter."""
        return Shape(self.rank, self.alpha)


GENE_NAMES: tuple[str, ...] = tuple(f.name for f in fields(Genes))


@dataclass(frozen=True)
class Blend:
    """A start from two parents' checkpoints combined."""

    kind: Literal["mask", "merge"]
    """`mask` takes each module from either parent, `merge` adds a share of both updates."""
    other: str
    """The second parent; the first is the one that the genome inherits from."""


@dataclass(frozen=True)
class Genome:
    """Genes with an identity and a history."""

    id: str
    generation: int
    genes: Genes
    parents: tuple[str, ...] = ()
    """Ids, the better parent first."""
    inherits: str | None = None
    """The parent whose weights it starts from, its own steps counted from 0; with a `blend`, only
    where the blend scores no better."""
    blend: Blend | None = None
    continues: str | None = None
    """The genome that it is a copy of, with other hyperparameters: it continues that one's training
    from the stage at which it enters."""
    enters: int = 0
    """The place of the first stage that it trains in, from 0."""
    bracket: int = 0
    derived: Derivation | None = None
    """How it was made from finished genomes without training; None: it is trained."""
    is_control: bool = False
    """Whether it goes through every stage whatever its rank, so that later figures tell how well
    earlier ones rank."""
    seed: int | None = None
    """Seeds its initial weights and dropout together with its id. None where the id alone is
    enough: ids that the search gives differ from seed to seed."""

    def draw(self, purpose: str, *index: int) -> int:
        """The seed of one of its draws: the same in every run of equal id and `seed`."""
        names = (self.id,) if self.seed is None else (self.seed, self.id)
        return derive_seed(*names, purpose, *index)

    @property
    def donors(self) -> tuple[str, ...]:
        """The genomes whose weights it may start from, or is derived from."""
        others = (self.inherits, self.blend.other if self.blend else None, self.continues)
        sources = self.derived.sources if self.derived is not None else ()
        return (*(donor for donor in others if donor is not None), *sources)
