"""Simulated searches with little to set."""

from __future__ import annotations

from typing import Any

from coralx.api import runs as api
from tests.support.factories import simulated_config

KEEP = {"backend": "simulated", "keep_checkpoints": "all"}


def evolve(name: str | None = None, **sections: Any) -> api.Outcome:
    return api.evolve(simulated_config(**sections), name)
