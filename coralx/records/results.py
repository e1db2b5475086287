"""The results of jobs: figures, what became of inherited weights, why training ended early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from coralx.records.genomes import Genome

Metrics = Mapping[str, float | None]
"""Figures by metric name; None where a figure is undefined."""


@dataclass(frozen=True)
class Trend:
    """A least-squares slope, per step, with its confidence interval: 99.9 %, or 95 % in runs of
    earlier versions."""

    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class Divergence:
    """Why training ended at `step`, before the end of the stage."""

    step: int
    quantity: str
    """What diverged: the loss, the gradient, a parameter, or a score of the evaluation."""
    kind: Literal["non-finite", "exploded", "unreachable"] = "non-finite"
    value: float | None = None
    """exploded: the training loss. unreachable: the least that it could be at the stage's end."""
    against: float | None = None
    """exploded: the untuned base's loss. unreachable: the survivors' at the stage's end."""

    @property
    def ruins_weights(self) -> bool:
        """Whether the weights are of no use any more; an unreachable loss leaves them intact."""
        return self.kind != "unreachable"

    @property
    def reason(self) -> str:
        """Why, in words."""
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

    The losses are those of the stage's validation sample.
    """

    kind: Literal["mask", "merge"]
    other: str
    """The second parent."""
    share: float
    """The better parent's: of the modules in a mask, its weight in a merge."""
    parent_loss: float | None
    blend_loss: float | None
    kept: bool
    """Whether the blend had the lower loss, so that the genome started from it."""


@dataclass(frozen=True)
class Inheritance:
    """How far a newborn's initial weights compute what its parent's do."""

    parent_rank: int
    error: float
    """The share of the parent's update that was lost, by truncation and with modules that the child
    does not adapt: a ratio of Frobenius norms, 0 where the function is unchanged."""
    dropped: tuple[str, ...] = ()
    """Kinds of modules that only the parent adapts."""
    added: tuple[str, ...] = ()
    """Kinds of modules that only the child adapts; they start at zero output."""
    blend: BlendTrial | None = None
    """A blend that was tried; one that was kept is the parent of the fields above."""


@dataclass(frozen=True)
class StageResult:
    """The result of training one genome through one stage."""

    genome: str
    stage: str
    first_step: int
    last_step: int
    metrics: Metrics
    """Figures on the validation split, and those of training and of the adapter. Those that depend
    on the adapter's size are of its final rank."""
    judged_steps: int
    """The stage's steps after warm-up, but for those that were skipped."""
    loss_trend: Trend | None
    train_seconds: float
    eval_seconds: float
    overhead_seconds: float
    inherited_steps: int
    """The steps that the lineage trained before this genome's birth."""
    checkpoint: str | None
    """Its path; None after a divergence."""
    divergence: Divergence | None = None
    trained_tokens: int = 0
    """Tokens that the model read while training; 0: not counted."""
    notes: tuple[str, ...] = ()
    """Remarks on how it was trained."""
    inheritance: Inheritance | None = None
    """In the first stage of a genome that started from another's weights; else None."""
    rank: int | None = None
    """The rank that the stage trained; None: not recorded."""
    curve: tuple[float, ...] = ()
    """The mean training loss in each of the stage's equal parts that were completed."""
    micro_batch: int | None = None
    """Rows that went through the model at once, because a whole batch ran out of memory; None: it
    did not."""
    skipped_steps: int = 0
    """Of the stage's steps, those that changed no weight: in fp16, their scaled gradient was
    infinite. They count as trained."""
    peak_bytes: int | None = None
    """The most that a CUDA GPU's allocator held during the steps; None: not recorded."""
    checkpoint_seconds: float = field(default=0.0, compare=False)
    """Of `overhead_seconds`, what reading and writing checkpoints took; 0: not recorded."""

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.eval_seconds + self.overhead_seconds

    @property
    def steps(self) -> int:
        return self.last_step - self.first_step

    @property
    def taken_steps(self) -> int:
        """Those that changed weights."""
        return self.steps - self.skipped_steps


@dataclass(frozen=True)
class Derived:
    """A derived genome as it turned out: with the groups that were dropped, and the highest rank of
    its modules."""

    genome: Genome
    result: StageResult
    """Without steps of its own; `eval_seconds` is what scoring took, the rest is overhead."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; each is None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    remark: str | None = None
    """Why a figure has no interval."""


@dataclass(frozen=True)
class Measurement:
    """Figures of one finished adapter on the validation and test splits."""

    genome: str | None
    """None: the untuned base."""
    validation: Metrics
    test: Mapping[str, Interval]
    scores: str | None = None
    """The SHA-256 of the file of its scores on the test split; None where none was kept."""
    seconds: float = 0.0
    """What measuring took; 0 where that was not recorded."""


@dataclass(frozen=True)
class Comparison:
    """A figure of `first` minus that of `second` on the same test rows, with its 95 % interval,
    uncorrected for the number of comparisons."""

    first: str
    second: str | None
    """None: the untuned base."""
    metric: str
    difference: float | None
    """None where one of the two figures is undefined."""
    low: float | None
    high: float | None
    remark: str | None = None
    """Why there is no difference, or no interval of it."""

    @property
    def is_indistinguishable(self) -> bool | None:
        """Whether no difference at all lies within the interval; None without one."""
        if self.low is None or self.high is None:
            return None
        return self.low <= 0.0 <= self.high

    @property
    def reversed(self) -> Comparison:
        """The same seen from the second, which must be a genome."""
        low, high, difference = (
            None if end is None else -end for end in (self.high, self.low, self.difference)
        )
        return Comparison(
            str(self.second), self.first, self.metric, difference, low, high, self.remark
        )


@dataclass(frozen=True)
class Progress:
    """How far a training job is, sent by its worker from time to time."""

    genome: str
    stage: str
    step: int
    last_step: int
    loss: float
    seconds_per_step: float
