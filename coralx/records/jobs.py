"""What workers are asked for. Plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from coralx.records.genomes import Genome, Shape
from coralx.records.results import Metrics


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
    from which it may still grow. At `partial` a long stage keeps what it has trained so far (None:
    nowhere). `micro_batch` rows are known to fit into memory together (None: a whole batch). At
    `predictions` is kept what it says about each validation row (None: nowhere). One that is not
    scored brings no figures of validation. From step `judged_from` on losses make the trend that
    stop rules judge (None: as in earlier versions, from the end of warm-up).
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
    partial: str | None = None
    micro_batch: int | None = None
    predictions: str | None = None
    is_scored: bool = True
    judged_from: int | None = None

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


# -- through JSON and back ------------------------------------------------------------------------
