"""CoralX: multi-objective evolution of LoRA adapters, trained through stages of growing budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coralx.api.trainer import (
        Genome,
        HyperbandTrainer,
        LoRAConfig,
        TrainingResult,
        TrainingStage,
    )
    from coralx.metrics.user_metrics import Predictions

__version__ = "0.1.0"

__all__ = [
    "Genome",
    "HyperbandTrainer",
    "LoRAConfig",
    "Predictions",
    "TrainingResult",
    "TrainingStage",
]


def __getattr__(name: str) -> Any:
    """Load the public names when they are asked for, so that a worker never pays for them."""
    if name == "Predictions":
        from coralx.metrics.user_metrics import Predictions

        return Predictions
    if name in __all__:
        from coralx.api import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
