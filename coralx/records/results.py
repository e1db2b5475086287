"""What jobs bring: figures, what became of inherited weights, and why training ended early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Metrics = Mapping[str, float | None]
"""Figures by metric name; None where a figure is undefined."""


@dataclass(frozen=True)
class Trend:
    """A least-squares slope (per step) with its confidence interval: of 99.9 %, in runs of earlier
    versions of 95 %."""

    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class Divergence:
    """Why training ended at `step`, before the stage did.

    `quantity` (the loss, the gradient, a parameter, or a score of the evaluation) was no finite
    number; or the training loss exploded, being
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
    size are those of its final rank. `micro_batch` rows went through the model at once, because a
    whole batch ran out of memory (None: it did not).
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
    micro_batch: int | None = None

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.eval_seconds + self.overhead_seconds

    @property
    def steps(self) -> int:
        return self.last_step - self.first_step


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; None where it is undefined. Where a figure has no interval,
    `remark` says why."""

    value: float | None
    low: float | None
    high: float | None
    remark: str | None = None


@dataclass(frozen=True)
class Measurement:
    """Figures of one finished adapter (or, with `genome` None, of the untuned base model).

    `scores` is the SHA-256 of the file of its scores on the test split, None where none was kept.
    `seconds` is what measuring took; 0 where that was not recorded.
    """

    genome: str | None
    validation: Metrics
    test: Mapping[str, Interval]
    scores: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """A figure of `first` less that of `second` (None: the untuned base) on the same test rows,
    with the 95 % interval, uncorrected for the number of comparisons. None where one of the two is
    undefined, or has no interval; `remark` says why."""

    first: str
    second: str | None
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    remark: str | None = None

    @property
    def is_indistinguishable(self) -> bool | None:
        """Whether no difference at all lies within the interval; None without one."""
        if self.low is None or self.high is None:
            return None
        return self.low <= 0.0 <= self.high

    @property
    def reversed(self) -> Comparison:
        """The same seen from the second, which is a genome."""
        low, high, difference = (
            None if end is None else -end for end in (self.high, self.low, self.difference)
        )
        return Comparison(
            str(self.second), self.first, self.metric, difference, low, high, self.remark
        )


@dataclass(frozen=True)
class Progress:
    """A sign of life from a training job."""

    genome: str
    stage: str
    step: int
    last_step: int
    loss: float
    seconds_per_step: float
