"""What commands and Python users call: `coralx.api` has the names of `coralx.api.runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coralx.api.runs import (
        Outcome,
        evolve,
        read_report,
        resume,
        run_config,
        start_stage,
        train_population,
        train_stage,
    )

__all__ = [
    "Outcome",
    "evolve",
    "read_report",
    "resume",
    "run_config",
    "start_stage",
    "train_population",
    "train_stage",
]


def __getattr__(name: str) -> Any:
    """Load the engine when it is asked for: most commands never need it."""
    if name in __all__:
        from coralx.api import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
