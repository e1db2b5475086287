"""What workers are asked to do, and by which budget."""

from __future__ import annotations

from dataclasses import dataclass

from coralx.records.genomes import Genome, Shape
from coralx.records.results import Metrics


@dataclass(frozen=True)
class StageBudget:
    """What a stage gets in one generation where budgets adapt."""

    stage: str
    share: float
    """Of the generation's steps; the two below follow from it."""
    epoch_budget: str
    """An exact fraction, as in "7/20"."""
    survival_rate: str
    """An exact fraction, as in "7/20"."""


@dataclass(frozen=True)
class Horizon:
    """The learning-rate schedule's span in steps, fixed at a genome's birth."""

    total_steps: int
    warmup_steps: int


@dataclass(frozen=True)
class Watch:
    """What ends a job before its last step. Numbers that are not finite always do."""

    explosion: bool = False
    """Whether an explosion of the training loss does."""
    survivors: tuple[float, ...] = ()
    """The highest training loss in each part of the stage among the genomes that went on from it in
    earlier generations: a loss that cannot reach theirs any more ends the job. Empty: it does not.
    """


@dataclass(frozen=True)
class Job:
    """Train one genome from step `first_step` up to `last_step`, evaluate, write a checkpoint.

    All paths are absolute.
    """

    genome: Genome
    stage: str
    first_step: int
    last_step: int
    horizon: Horizon
    data_fraction: float
    """The share of the training rows that the stage may see: the first of one fixed order."""
    checkpoint: str | None
    """The folder that the checkpoint is written to; None: no checkpoint is written."""
    eval_limit: int | None = None
    """How many validation rows to score; None: all."""
    resume_from: str | None = None
    """The checkpoint to continue: of the genome's own previous stage, or of the genome that it is a
    copy of."""
    inherit_from: str | None = None
    """The checkpoint of another genome, from whose weights a newborn starts."""
    inherit_optimizer: bool = False
    """Whether it starts with that checkpoint's optimizer state as well."""
    inherited_steps: int = 0
    """The steps that the lineage of `inherit_from` has trained."""
    blend_from: str | None = None
    """The checkpoint of the second parent, if it may start from both."""
    blended_steps: int = 0
    """The steps that the lineages of both parents have trained."""
    shape: Shape | None = None
    """The adapter's shape in this stage, from which it may still grow; None: the genes' own."""
    watch: Watch = Watch()
    partial: str | None = None
    """Where a long stage keeps what it has trained so far; None: nowhere."""
    micro_batch: int | None = None
    """How many rows are known to fit into memory together; None: a whole batch."""
    predictions: str | None = None
    """Where the scores of each validation row are kept; None: nowhere."""
    is_scored: bool = True
    """Whether validation is looked at; if not, the result has no figures of validation."""
    judged_from: int | None = None
    """The step from which on losses make the trend that stop rules judge; None: the end of
    warm-up, as in earlier versions."""

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
    """Measure a finished adapter on the whole validation and test splits."""

    genome: Genome | None
    """None: the untuned base."""
    checkpoint: str | None
    validation: Metrics | None = None
    """Figures on the validation split that are known already; None: measure them."""
    scores: str | None = None
    """Where the scores of each row of the test split are kept; None: nowhere."""


@dataclass(frozen=True)
class DeriveJob:
    """Make the adapter of a derived genome, score it as the last stage does, write a checkpoint.

    All paths are absolute.
    """

    genome: Genome
    """`derived` says how. Its genes are those of the first source, but for the rank."""
    stage: str
    """The last one, as whose result it counts."""
    sources: tuple[str, ...]
    """The checkpoints of `derived.sources`, in their order."""
    inherited_steps: int
    """The steps that the lineages of all sources have trained."""
    checkpoint: str | None
    """The folder that is written; None: none is."""
    predictions: str | None = None
    """Where the scores of each validation row are kept; None: nowhere."""


@dataclass(frozen=True)
class JobFailed:
    """A job of which every attempt failed."""

    genome: str | None
    stage: str
    reason: str
