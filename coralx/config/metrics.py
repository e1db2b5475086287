"""The metrics that a config may name: direction, range, and when each is undefined.

How each is computed stands in `coralx.objectives`; here only what a config needs to be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coralx.config.suggest import did_you_mean

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """`source`: read off predictions, off the adapter, or off the training steps themselves."""

    direction: Direction
    source: Literal["predictions", "adapter", "training"]
    range: str
    undefined: str = "never"


CATALOGUE: dict[str, Metric] = {
    "auroc": Metric("maximize", "predictions", "0 to 1", "a class has no row"),
    "accuracy": Metric("maximize", "predictions", "0 to 1"),
    "f1": Metric("maximize", "predictions", "0 to 1"),
    "precision": Metric("maximize", "predictions", "0 to 1"),
    "recall": Metric("maximize", "predictions", "0 to 1"),
    "calibration": Metric("minimize", "predictions", "0 to 1"),
    "eval_loss": Metric("minimize", "predictions", "0 upward"),
    "trainable_parameters": Metric("minimize", "adapter", "1 upward"),
    "adapter_bytes": Metric("minimize", "adapter", "1 upward"),
    "train_loss": Metric("minimize", "training", "0 upward"),
    "gradient_norm": Metric("minimize", "training", "0 upward"),
    "loss_slope": Metric("minimize", "training", "any", "fewer than three steps after warm-up"),
}


def check_metric(name: object) -> object:
    """Pass a known metric's name through; raises ValueError with the nearest known one."""
    if isinstance(name, str) and name not in CATALOGUE:
        raise ValueError(
            f"no metric of that name{did_you_mean(name, CATALOGUE)}; known: {', '.join(CATALOGUE)}"
        )
    return name
