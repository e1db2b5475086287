"""The nouns that cross a boundary: genomes, jobs, results.

Plain frozen dataclasses; `to_json` and `from_json` take them through ledger and worker messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

Metrics = Mapping[str, float | None]
"""Figures by metric name; None where a figure is undefined."""

TargetModules = tuple[str, ...] | Literal["all-linear"]
ALL_LINEAR: Literal["all-linear"] = "all-linear"


@dataclass(frozen=True)
class Shape:
    """The rank of an adapter and its alpha."""

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

    @property
    def alpha(self) -> float:
        """LoRA alpha: ratio times rank."""
        return self.alpha_ratio * self.rank

    @property
    def shape(self) -> Shape:
        """Rank and alpha of the finished adapter."""
        return Shape(self.rank, self.alpha)


GENE_NAMES: tuple[str, ...] = tuple(f.name for f in fields(Genes))


@dataclass(frozen=True)
class Blend:
    """Two parents' checkpoints made one: `mask` takes each module from either of them, `merge` adds
    a share of both updates. `other` is the parent beside the one that the genome inherits from."""

    kind: Literal["mask", "merge"]
    other: str


@dataclass(frozen=True)
class Genome:
    """Genes with an identity and a history.

    `inherits`: the parent whose weights it starts from, its own steps counted from 0; with a
    `blend` only where those of both its parents together are no better. `continues`:
    the genome that it is a copy of, with other hyperparameters, taking its training up where it
    enters. `enters`: the place of the first stage that it trains in. `bracket`: the one it belongs
    to.
    """

    id: str
    generation: int
    genes: Genes
    parents: tuple[str, ...] = ()
    inherits: str | None = None
    blend: Blend | None = None
    continues: str | None = None
    enters: int = 0
    bracket: int = 0

    @property
    def donors(self) -> tuple[str, ...]:
        """The genomes whose weights it may start from."""
        others = (self.inherits, self.blend.other if self.blend else None, self.continues)
        return tuple(donor for donor in others if donor is not None)


@dataclass(frozen=True)
class StageBudget:
    """What a stage gets in one generation where budgets adapt: its `share` of the generation's
    steps, and what follows from it. Fractions are written exactly, as in "7/20"."""

    stage: str
    share: float
    epoch_budget: str
    survival_rate: str


@dataclass(frozen=True)
class Horizon:
    """The learning-rate schedule's span in steps, fixed at a genome's birth."""

    total_steps: int
    warmup_steps: int


@dataclass(frozen=True)
class Watch:
    """What ends a job before its last step, beside numbers that are not finite: an `explosion` of
    the training loss; a loss that can come no nearer to `survivors`, the highest in each part of
    the stage among those that went on from it in earlier generations (empty: not compared)."""

    explosion: bool = False
    survivors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Job:
    """Train one genome from step `first_step` up to `last_step`, evaluate, write `checkpoint`.

    `resume_from` continues the genome's own previous stage, or that of the genome it is a copy of;
    `inherit_from` warm-starts a newborn
    from another genome's checkpoint, whose lineage has trained `inherited_steps` before. With
    `blend_from`, the checkpoint of its other parent, it may start from both, whose lineages have
    trained `blended_steps`. Paths are absolute; without a `checkpoint` path none is written.
    `data_fraction` is the share of the fixed data order that the stage may see; `eval_limit` caps
    the validation rows (None: all). `shape` is the adapter's in this stage (None: the genes' own),
    from which it may still grow.
    """

    genome: Genome
    stage: str
    first_step: int
    last_step: int
    horizon: Horizon
    data_fraction: float
    checkpoint: str | None
    eval_limit: int | None = None
    resume_from: str | None = None
    inherit_from: str | None = None
    inherit_optimizer: bool = False
    inherited_steps: int = 0
    blend_from: str | None = None
    blended_steps: int = 0
    shape: Shape | None = None
    watch: Watch = Watch()

    @property
    def sources(self) -> tuple[str, ...]:
        """The checkpoints that it starts from."""
        paths = (self.resume_from, self.inherit_from, self.blend_from)
        return tuple(path for path in paths if path is not None)

    @property
    def trained_shape(self) -> Shape:
        """Rank and alpha that the stage trains."""
        return self.shape or self.genome.genes.shape


@dataclass(frozen=True)
class MeasureJob:
    """Measure a finished adapter, or the untuned base model, on whole validation and test splits.

    `validation` carries figures that are known already and need no second look. At the path
    `scores` is kept what the model says about each row of the test split.
    """

    genome: Genome | None
    checkpoint: str | None
    validation: Metrics | None = None
    scores: str | None = None


@dataclass(frozen=True)
class JobFailed:
    """A job that brought no result on any attempt."""

    genome: str | None
    stage: str
    reason: str


@dataclass(frozen=True)
class Trend:
    """A least-squares slope (per step) with its 95 % confidence interval."""

    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class Divergence:
    """Why training ended at `step`, before the stage did.

    `quantity`, the loss or the gradient, was no finite number; or the training loss exploded, being
    `value` where the untuned base has `against`; or it would be `value` at best at the stage's end,
    where survivors had `against`.
    """

    step: int
    quantity: str
    kind: Literal["non-finite", "exploded", "unreachable"] = "non-finite"
    value: float | None = None
    against: float | None = None

    @property
    def spoils(self) -> bool:
        """Whether it says that the genome's weights were going to ruin."""
        return self.kind != "unreachable"

    @property
    def reason(self) -> str:
        """The rule that it broke, in words."""
        match self.kind:
            case "non-finite":
                return f"{self.quantity} is not finite"
            case "exploded":
                return (
                    f"training loss exploded ({self.value:.3g} against {self.against:.3g} untuned)"
                )
            case "unreachable":
                return (
                    f"training loss cannot reach the survivors' ({self.value:.3g} at best against "
                    f"{self.against:.3g})"
                )


@dataclass(frozen=True)
class BlendTrial:
    """A blend scored before any training, against the better parent's weights alone.

    `share` is the better parent's: of the modules in a mask, its weight in a merge. The losses are
    those of the stage's validation sample; the blend is `kept` where its own is lower.
    """

    kind: Literal["mask", "merge"]
    other: str
    share: float
    parent_loss: float | None
    blend_loss: float | None
    kept: bool


@dataclass(frozen=True)
class Inheritance:
    """How the weights that a newborn started from carry its parent's function.

    `error` is the share of the parent's update that was lost, by truncation and with modules that
    the child does not adapt: a ratio of Frobenius norms, 0 where the function is unchanged.
    `dropped` and `added` are the kinds of modules that only the parent or only the child adapts;
    the child's own start at zero output. With a `blend` that was kept, it stands for the parent.
    """

    parent_rank: int
    error: float
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    blend: BlendTrial | None = None


@dataclass(frozen=True)
class StageResult:
    """What one job brought: figures on the validation split, training signals and costs.

    `judged_steps` counts the stage's steps after warm-up. `checkpoint` is None after a divergence.
    `curve` holds the mean training loss in each of the stage's equal parts that were completed.
    `inherited_steps` counts the lineage's steps before this genome's birth; `trained_tokens` those
    that the model read while training (0: not counted). `notes` are remarks on how it was trained.
    `inheritance` stands in the first stage of a genome that started from another's weights. `rank`
    is the one that the stage trained (None: not recorded); all figures that depend on the adapter's
    size are those of its final rank.
    """

    genome: str
    stage: str
    first_step: int
    last_step: int
    metrics: Metrics
    judged_steps: int
    loss_trend: Trend | None
    train_seconds: float
    eval_seconds: float
    overhead_seconds: float
    inherited_steps: int
    checkpoint: str | None
    divergence: Divergence | None = None
    trained_tokens: int = 0
    notes: tuple[str, ...] = ()
    inheritance: Inheritance | None = None
    rank: int | None = None
    curve: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.eval_seconds + self.overhead_seconds

    @property
    def steps(self) -> int:
        return self.last_step - self.first_step


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap confidence interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Measurement:
    """Figures of one finished adapter (or, with `genome` None, of the untuned base model).

    `scores` is the SHA-256 of the file of its scores on the test split, None where none was kept.
    """

    genome: str | None
    validation: Metrics
    test: Mapping[str, Interval]
    scores: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A figure of `first` less that of `second` (None: the untuned base) on the same test rows,
    with the 95 % interval of the paired bootstrap. None where one of the two is undefined."""

    first: str
    second: str | None
    metric: str
    difference: float | None
    low: float | None
    high: float | None

    @property
    def is_indistinguishable(self) -> bool | None:
        """Whether no difference at all lies within the interval; None without one."""
        if self.low is None or self.high is None:
            return None
        return self.low <= 0.0 <= self.high

    @property
    def reversed(self) -> Comparison:
        """The same seen from the second, which is a genome."""
        swapped = (None if end is None else -end for end in (self.difference, self.high, self.low))
        return Comparison(str(self.second), self.first, self.metric, *swapped)


@dataclass(frozen=True)
class Progress:
    """A sign of life from a training job."""

    genome: str
    stage: str
    step: int
    last_step: int
    loss: float
    seconds_per_step: float


# -- through JSON and back ------------------------------------------------------------------------

T = TypeVar("T")


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Building one takes milliseconds, so each is built once."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def to_json(record: Any) -> dict[str, Any]:
    """A record as JSON-ready values. Every figure must be finite or None."""
    data: dict[str, Any] = _adapter(type(record)).dump_python(record, mode="json")
    return data


def from_json(cls: type[T], data: Any) -> T:
    """Rebuild a record; raises pydantic.ValidationError where `data` does not fit `cls`."""
    record: T = _adapter(cls).validate_python(data)
    return record
