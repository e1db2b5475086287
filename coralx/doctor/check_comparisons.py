"""What `--gpu-check` compares: losses, gradients and speeds of genomes trained in two ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coralx.doctor.check_bench import Trial
from coralx.doctor.check_trials import PART, WHOLE, Context
from coralx.records.results import StageResult

LOSSES, GRADIENTS = 0.05, 0.15
"""Two ways of training agree whose losses and gradient norms differ by no more than these shares:
kernels round differently in 16 bits."""

MEASURED = {"train_loss": LOSSES, "eval_loss": LOSSES, "gradient_norm": GRADIENTS}

WORDS = {
    "train_loss": "the training loss",
    "eval_loss": "the validation loss",
    "gradient_norm": "the gradient's norm",
}

Figure = float | str | None


class CheckFailed(Exception):
    """What was seen is not what was expected; both are named."""


class NotApplicable(Exception):
    """A part does not apply here, and why."""


@dataclass(frozen=True)
class Finding:
    """What a part found that passed."""

    said: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """For the recommendation, and for `--json`."""


def compared(context: Context, train: Callable[[Context, str], Trial]) -> Finding:
    """How far losses and gradients of the two backends are apart; where the tested one cannot train
    the base, the reference alone is to train it. Raises CheckFailed where they differ too much."""
    tested = train(context, context.backend)
    figures: dict[str, Figure] = {context.backend: speed_of(tested.of(PART))}
    if context.obstacle:
        raise NotApplicable(f"{context.obstacle}; {context.backend} trains")
    reference = train(context, context.reference)
    figures[context.reference] = speed_of(reference.of(PART))
    worst = dict.fromkeys(MEASURED, 0.0)
    for genome in (WHOLE, PART):
        ours, theirs = tested.of(genome), reference.of(genome)
        for name, most in MEASURED.items():
            difference = relative_difference(ours, theirs, name)
            if difference is None or difference > most:
                raise CheckFailed(
                    f"with an adapter on {_where(genome)}, {WORDS[name]} is "
                    f"{shown(ours, name)} with {context.tested}; expected {shown(theirs, name)} "
                    f"as with {context.reference}, within {percent(most)}"
                )
            worst[name] = max(worst[name], difference)
    figures |= worst
    losses, gradients = max(worst["train_loss"], worst["eval_loss"]), worst["gradient_norm"]
    both = f"{context.tested}'s and {context.reference}'s"
    speeds = [speed_of(trial.of(PART)) for trial in (tested, reference)]
    return Finding(
        f"{both} differ by {percent(losses)}, gradients by {percent(gradients)}; "
        f"{speeds[0]:,.0f} and {speeds[1]:,.0f} tokens/s",
        figures,
    )


def relative_difference(one: StageResult, other: StageResult, name: str) -> float | None:
    """The relative difference of a figure; None where one of the two lacks it, or is not finite."""
    a, b = one.metrics.get(name), other.metrics.get(name)
    if a is None or b is None or not math.isfinite(a - b):
        return None
    return abs(a - b) / max(abs(a), abs(b), 1e-12)


def shown(result: StageResult, name: str) -> str:
    """A figure as text."""
    value = result.metrics.get(name)
    return "undefined" if value is None else f"{value:.4g}"


def percent(share: float) -> str:
    """A share in percent, to as many digits as tell it from none."""
    return f"{100 * share:.2g} %"


def require_same_losses(one: StageResult, first: str, other: StageResult, second: str) -> None:
    """Raise CheckFailed where a setting changes what a genome learns."""
    difference = relative_difference(one, other, "train_loss")
    if difference is None or difference > LOSSES:
        raise CheckFailed(
            f"{second}, the training loss is {shown(other, 'train_loss')}; expected "
            f"{shown(one, 'train_loss')} as {first}, within {percent(LOSSES)}"
        )


def speed_of(result: StageResult) -> float:
    """Tokens per second. Raises CheckFailed where none were counted."""
    if not result.trained_tokens or not result.train_seconds:
        raise CheckFailed("no tokens were counted while it trained")
    return result.trained_tokens / result.train_seconds


def _where(genome: str) -> str:
    return "all layers" if genome == WHOLE else "some layers"
